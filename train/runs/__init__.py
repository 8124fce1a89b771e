"""Named training runs on Ray Train: driver, workers and resumption."""
