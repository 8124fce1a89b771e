"""Erasure of a patient's images and rows, and export of de-identified copies."""
