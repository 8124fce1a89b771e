"""The files of a release bundle: weights, card, out-of-distribution statistics, edge runner and MLflow model."""
