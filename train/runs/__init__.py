"""Named training runs on Ray Train: driver and workers."""
