"""Connections with deadlines, and whether a dependency answers."""
