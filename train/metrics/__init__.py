"""Metrics computed from logits and labels, with intervals over patients; pure functions."""
