"""The catalog: a PostgreSQL row and a sealed original for each image, and the review of the quarantine."""
