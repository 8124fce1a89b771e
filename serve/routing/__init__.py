"""Routing: sticky keys and weights to a version, the desired state in PostgreSQL, and injected faults."""
