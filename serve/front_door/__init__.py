"""The data plane: one request from upload to answer."""
