"""Drawn X-rays: the built-in source."""
