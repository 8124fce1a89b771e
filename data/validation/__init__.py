"""Checks of a dataset version, its acceptance against the last one, and the HTML pages that show them."""
