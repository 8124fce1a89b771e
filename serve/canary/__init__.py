"""The statistics of a rollout, pure arithmetic: guardrails, evidence, verdict and a simulation of traffic."""
