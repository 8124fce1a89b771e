"""Authentication by API key, roles and rate limits."""
