"""What is measured of a model, and the gates it has to pass."""
