"""Checkpoints: state, store and asynchronous writer."""
