"""The files of a release bundle."""
