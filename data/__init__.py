"""X-rays in: taxonomy, sources, synthetic generator, manifest, pixels, splits, versioned datasets."""
