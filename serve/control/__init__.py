"""The control plane: rollouts, deployments, environments, and the reconciler that applies them to Ray Serve."""
