"""How weights, gradients and optimizer state lie on the workers."""
