"""The generator of synthetic X-rays, the built-in source."""
