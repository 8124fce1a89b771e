"""Release bundles: signed, content-addressed files with the code that serves them; the model registry."""
