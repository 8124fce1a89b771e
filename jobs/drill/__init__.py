"""The game day: rollouts under load while processes are killed."""
