"""How jobs start, show progress, end, and submit one another."""
