"""Fetching and unpacking what publishers offer: resumed downloads, checksums and safe archives."""
