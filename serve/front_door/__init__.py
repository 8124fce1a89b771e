"""The data plane: one request from upload to answer, with batching, fallback to the champion and mirroring."""
