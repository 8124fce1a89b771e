"""The ground floor: where we run and the services we stand on. Knows no pixels and no models."""
