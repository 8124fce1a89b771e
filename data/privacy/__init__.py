"""Erasure of patients and de-identified copies."""
