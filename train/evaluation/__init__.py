"""Evaluation of a model version: test suite, behavioural tests, shortcut audit, gates and model card."""
