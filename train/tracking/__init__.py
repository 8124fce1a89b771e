"""MLflow runs, system metrics and the provenance of a run."""
