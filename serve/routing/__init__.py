"""Routing arithmetic, the desired state in PostgreSQL, and injected faults."""
