"""Adapters, each for one published folder layout, and what they share: manifests and cards."""
