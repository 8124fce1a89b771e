"""A constant rate of requests to one version, held against the gates: `python -m jobs.load_test`."""
