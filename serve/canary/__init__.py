"""Pure statistics of a rollout: guardrails, evidence, verdict."""
