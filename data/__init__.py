"""X-rays in: taxonomy, synthetic generator, manifest, pixels, splits, versioned datasets."""
