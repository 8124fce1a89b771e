"""Search spaces and sweeps: many training runs of different settings, the best of them as a recipe."""
