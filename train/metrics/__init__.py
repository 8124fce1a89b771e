"""Figures computed from logits and labels; pure functions."""
