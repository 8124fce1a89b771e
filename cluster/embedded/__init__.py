"""The platform that `make up` runs on one machine: S3, PostgreSQL, MLflow and a Ray head."""
