"""The benchmarks of `make bench`, each a ratio to a named peer measured in one run."""
