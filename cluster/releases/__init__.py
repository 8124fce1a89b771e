"""Release bundles: their files, signatures, code package and registry."""
