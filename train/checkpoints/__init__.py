"""Checkpoints: complete training state, written asynchronously, with a commit object last."""
