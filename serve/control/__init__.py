"""The control plane: rollouts, deployments and environments, and what applies them to Ray Serve."""
