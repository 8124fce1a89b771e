"""The HTTP interface: routes, response models, errors, OpenAPI and middleware."""
