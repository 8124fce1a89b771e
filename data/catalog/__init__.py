"""The catalog in PostgreSQL and the sealed originals behind it."""
