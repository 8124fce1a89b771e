"""The Ray Serve graph: front door, routing, classifier, explainer, records and the reconciler."""
