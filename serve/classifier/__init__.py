"""One classifier version in a replica: calibrated probabilities, out-of-distribution score, triage, heatmap."""
