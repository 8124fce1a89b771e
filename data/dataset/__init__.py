"""ETL: from catalog rows to a versioned Parquet dataset, grouped and split by patient."""
