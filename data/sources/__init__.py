"""Adapters: each reads one published folder layout as it is and lists its images for `data.catalog.ingest`."""
