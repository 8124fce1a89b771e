"""A game day of rollouts under load, while processes are killed: `python -m jobs.drill`."""
