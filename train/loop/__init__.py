"""The training loop; it knows neither Ray nor MLflow nor S3."""
