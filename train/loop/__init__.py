"""The training loop of both models; it knows neither Ray nor MLflow nor S3."""
