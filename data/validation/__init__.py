"""Checks of a dataset version, its acceptance, and the pages that show them."""
