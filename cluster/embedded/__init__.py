"""The embedded platform of one machine, run by `make up`: S3, PostgreSQL, MLflow and a Ray head."""
