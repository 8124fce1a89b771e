"""The load test: a constant rate of requests to one version, held against the gates."""
