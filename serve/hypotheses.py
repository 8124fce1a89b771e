"""What is bet against during a rollout: one row of `serve.wealth` each, its bound and its part of the budget.

`serve.evidence` places the bets, `serve.verdict` asks what they won.
"""

from serve.guardrails import GuardrailConfig
from serve.window import BOUNDS

EVENTS = ("errors", "invalid_outputs", "abstentions", "feedback", "deaths", "mirrored_errors")
"""Guardrails that ask whose events they are; each patient (or incident) counts once."""
P99 = 0.01
"""A P99 is above a bound when more than this share of the requests is."""


def allowed(config: GuardrailConfig, bound: str) -> float:
    """The share of requests that may be over one of `serve.window.BOUNDS`."""
    return config.error_bound if bound == "errors" else P99


def alpha_of(config: GuardrailConfig, bound: str) -> float:
    alphas = {"errors": config.budget.absolute_errors, "over_roll_back": config.budget.absolute_latency}
    return alphas.get(bound, config.freeze_alpha)


def rows(config: GuardrailConfig) -> list[str]:
    """The hypotheses that are bet against."""
    absolute = [f"{side}:{bound}" for bound in BOUNDS for side in ("canary_over", "champion_under")]
    drift = [f"drift:{label}" for label in config.labels]
    mix = [f"{way}:{label}" for label in config.labels for way in ("more", "less")]
    return [
        *EVENTS,
        "latency",
        "disagreement",
        "frozen_errors",
        "gross_errors",
        "champion_under_gross",
        *absolute,
        *drift,
        *(mix if config.label_shares else []),
    ]
