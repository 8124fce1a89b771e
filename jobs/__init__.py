"""What `ray job submit` runs: short entry points, named recipes and the pipeline."""
