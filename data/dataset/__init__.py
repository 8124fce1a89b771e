"""From catalog rows to a versioned Parquet dataset."""
