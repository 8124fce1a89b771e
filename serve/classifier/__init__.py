"""One version of the classifier inside a replica."""
