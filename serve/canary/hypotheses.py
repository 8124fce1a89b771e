"""The null hypotheses of a rollout: one e-process each, with its bound and its share of the error budget.

All of them follow from the table of `serve.canary.guardrails`. `serve.canary.evidence` updates them,
`serve.canary.verdict` reads them.
"""

from serve.canary.guardrails import BY_NAME, GUARDRAILS, Guardrail, GuardrailConfig

P99 = 0.01
"""A P99 is above a bound when more than this share of the requests is."""


def hypothesis_names(config: GuardrailConfig) -> list[str]:
    """Return the name of each hypothesis, in the order in which they are stored."""
    return [name for guardrail in GUARDRAILS for name in names_of(guardrail, config)]


def names_of(guardrail: Guardrail, config: GuardrailConfig) -> list[str]:
    """Return the names of a guardrail's hypotheses."""
    if guardrail.test == "window":
        return [canary_over(guardrail), champion_under(guardrail)]
    if guardrail.test == "labels":
        return [f"{guardrail.name}:{label}" for label in config.labels]
    if guardrail.test == "label_mix":
        mix = [f"{way}:{label}" for label in config.labels for way in ("more", "less")]
        return mix if config.label_shares else []
    if guardrail.test == "full_traffic" and guardrail.champion_below is None:
        return [guardrail.name, champion_under(guardrail)]
    return [guardrail.name]


def canary_over(guardrail: Guardrail) -> str:
    """Name the hypothesis that the canary is at most at the bound of a `window` guardrail."""
    return f"canary_over:{guardrail.key}"


def champion_under(guardrail: Guardrail) -> str:
    """Name the hypothesis that the champion is at least at the bound of a guardrail."""
    if guardrail.test == "window":
        return f"champion_under:{guardrail.key}"
    if guardrail.champion_below is not None:
        return champion_under(BY_NAME[guardrail.champion_below])
    return f"champion_under_{guardrail.key}"


def allowed_share(guardrail: Guardrail, config: GuardrailConfig) -> float:
    """Return the share of requests that may be over the bound of a guardrail."""
    if guardrail.column == "latency_N":
        return P99
    return float(getattr(config, str(guardrail.bound)))


def alpha_of(guardrail: Guardrail, config: GuardrailConfig) -> float:
    """Return the probability with which a guardrail may speak falsely: its budget, or that of a freeze."""
    return config.budget.get(guardrail.name, config.freeze_alpha)


def needed(guardrail: Guardrail, config: GuardrailConfig) -> float:
    """Return the e-value at which a guardrail rolls back: 1 over its part of the budget."""
    owner = guardrail.shares_budget_of or guardrail.name
    parts = sum(owner in (row.name, row.shares_budget_of) for row in GUARDRAILS)
    return parts / config.budget[owner]
