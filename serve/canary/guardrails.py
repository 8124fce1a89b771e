"""The guardrails of a rollout: one table, from which hypotheses, evidence, verdict and promotion follow.

A guardrail is a row of `GUARDRAILS`. Another one takes a row at its end (evidence is stored in this order), the
column it looks at in `serve.canary.observations`, its stream in `serve.canary.simulation`, and a test. All budgets
are given away: a new row has a part of another's (`shares_budget_of`), or that one's is lowered, in
`environments.yaml` too. docs/rollout.md says where the numbers come from.
"""

import math
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field
from typing import Literal

Test = Literal["share", "blocks", "rate", "full_traffic", "window", "labels", "label_mix"]
"""`share`: do bad events befall the canary more often than its share of the traffic? Each patient counts once.
`blocks`: is the canary's share of bad requests larger than the champion's, block by block?
`rate`: is a rate above a bound, whatever the champion's?
`full_traffic`: the same at 100 %, where the champion was shown to be below the bound earlier in the rollout.
`window`: is the canary over a bound for whole minutes, and the champion not?
`labels`: does the canary give any label more or less often than the champion?
`label_mix`: does the champion give any label more or less often than before the rollout?"""
Source = Literal["requests", "incidents", "pairs", "feedback"]


@dataclass(frozen=True)
class Guardrail:
    """One row of the table."""

    name: str
    bad: str
    """What counts against the canary."""
    compared_with: str
    _: KW_ONLY
    test: Test
    source: Source = "requests"
    column: str
    """What it looks at, by `source` an attribute of `serve.canary.observations.Requests`, `Pairs` or `Feedback`.
    For a `share` of pairs the end of two attributes, of canary and champion."""
    budget: float | None = None
    """Probability of rolling back a canary that is as good as the champion; None: it never rolls back, or shares."""
    shares_budget_of: str | None = None
    """The guardrail whose budget it has an equal part of."""
    margin: float | None = None
    """How much worse than the champion, as a difference of rates, a canary may be and still be promoted; None where
    a promotion does not ask."""
    failure: bool = False
    """Whether such a request has no usable answer; then its margin bounds the canary's own rate at 100 %, too."""
    bound: str | None = None
    """The attribute of `GuardrailConfig` that says how much is too much."""
    key: str = ""
    """What its hypotheses are stored under, where that is not its name."""
    champion_below: str | None = None
    """For `full_traffic`: the `window` guardrail by which the champion is shown to be below the bound; None: by a
    hypothesis of its own."""

    @property
    def rolls_back(self) -> bool:
        return self.budget is not None or self.shares_budget_of is not None


CONCURRENT = "champion, concurrent"
# fmt: off
GUARDRAILS = (
    Guardrail("errors", "`model_error`, `deadline`", CONCURRENT,
              test="share", column="error_N", budget=0.024, margin=0.01, failure=True),
    Guardrail("invalid_outputs", "an answer that is no probabilities", CONCURRENT,
              test="share", column="invalid_N", budget=0.004, margin=0.01, failure=True),
    Guardrail("abstentions", "the model abstained", CONCURRENT,
              test="share", column="abstained_N", budget=0.004, margin=0.05),
    Guardrail("feedback", "a physician corrected the answer", CONCURRENT,
              test="share", source="feedback", column="corrected_N", budget=0.001),
    Guardrail("deaths", "an incident of infrastructure, once each",
              "champion's incidents; at least half of all are expected of the canary",
              test="share", source="incidents", column="incident_N", budget=0.001),
    Guardrail("mirrored_errors", "the canary alone failed on a mirrored image", "the champion alone failed, in pairs",
              test="share", source="pairs", column="failed_N", budget=0.002, margin=0.01),
    Guardrail("latency", "slower than the champion's frozen 95th percentile, or a deadline",
              "champion, in blocks side by side",
              test="blocks", column="slow_N", budget=0.004, margin=0.05, bound="latency_tolerance"),
    Guardrail("disagreement", "another label than the champion's on a mirrored image", "bound",
              test="rate", source="pairs", column="disagree_N", budget=0.003, bound="disagreement_bound"),
    Guardrail("frozen_errors", "errors and invalid outputs at 100 %",
              "the bound that the champion was shown to keep earlier in the rollout",
              test="full_traffic", column="failed_N", budget=0.002, bound="error_bound",
              champion_below="absolute_errors"),
    Guardrail("gross_errors", "errors and invalid outputs at 100 %",
              "ten times that bound, which little traffic of the champion shows that it keeps",
              test="full_traffic", column="failed_N", shares_budget_of="frozen_errors", bound="gross_bound",
              key="gross"),
    Guardrail("absolute_errors", "errors and invalid outputs over the window", "bound, and the champion's side of it",
              test="window", column="failed_N", budget=0.0005, bound="error_bound", key="errors"),
    Guardrail("absolute_latency", "a P99 over the window that rolls back", "bound, and the champion's side of it",
              test="window", column="latency_N", budget=0.0005, bound="roll_back_p99_ms", key="over_roll_back"),
    Guardrail("promotion_latency", "a P99 over the window that stops the ramp", "bound, and the champion's side of it",
              test="window", column="latency_N", bound="promote_p99_ms", key="over_promote"),
    Guardrail("drift", "any label more or less often",
              "champion's mix, concurrent; each label has an equal part of the budget",
              test="labels", column="label_N", budget=0.004),
    Guardrail("input_drift", "any label of the champion's more or less often",
              "its mix before the rollout; freezes the ramp",
              test="label_mix", column="label_N", bound="drift_tolerance"),
)
# fmt: on
BY_NAME = {guardrail.name: guardrail for guardrail in GUARDRAILS}


def with_test(test: Test, source: Source | None = None) -> tuple[Guardrail, ...]:
    """Return the guardrails of a test, and of a source where one is given, in the order of the table."""
    return tuple(row for row in GUARDRAILS if row.test == test and source in (None, row.source))


BOUNDS = tuple(row.key for row in with_test("window"))
"""Keys of the absolute bounds: what `serve.canary.sliding_window` counts."""
FAULTS = tuple(row.name for row in GUARDRAILS if row.source == "requests" and row.margin is not None)
"""What can be bad about a request and is asked of a promotion."""
FAILURES = tuple(row.name for row in GUARDRAILS if row.failure)
DEFAULT_BUDGET = {row.name: row.budget for row in GUARDRAILS if row.budget is not None}
DEFAULT_MARGINS = {row.name: row.margin for row in GUARDRAILS if row.margin is not None}


@dataclass(frozen=True, kw_only=True)
class GuardrailConfig:
    labels: tuple[str, ...]
    """The classes, as in the taxonomy."""
    budget: Mapping[str, float] = field(default_factory=DEFAULT_BUDGET.copy)
    """By guardrail; together at most 0.05."""
    margins: Mapping[str, float] = field(default_factory=DEFAULT_MARGINS.copy)
    """By guardrail."""
    promote_alpha: float = 0.05
    """Probability with which a canary that is worse by a margin is promoted. It is not split: all must pass."""
    freeze_alpha: float = 0.01
    """Probability of a false freeze for drift of the input, and of a false stop for latency."""
    error_bound: float = 0.01
    """Absolute: more errors and invalid outputs than this over the window are too many."""
    gross: float = 10.0
    """So many times `error_bound` takes few requests to show that the champion is below it, so that a quick ramp is
    guarded at 100 % too."""
    promote_p99_ms: float = 300.0
    """P99 that a promotion needs; above it the ramp stops."""
    roll_back_p99_ms: float = 500.0
    """P99 that rolls back."""
    window_minutes: int = 5
    """How long an absolute bound has to be broken."""
    window_requests: int = 100
    """Canary requests in that time below which no absolute guardrail applies."""
    disagreement_bound: float = 0.10
    """Share of mirrored images on which the versions may give different labels."""
    slow_ms: float | None = None
    """Latency from which on a request is slow; None: the 95th percentile of the champion's first 200 requests of the
    rollout, which then stays."""
    latency_tolerance: float = 0.05
    """How much larger the canary's share of slow requests may be before evidence counts against it."""
    block_s: float = 5.0
    """Latency is compared by blocks of this length: one pause of a process makes many requests slow, but one block."""
    label_shares: Mapping[str, float] | None = None
    """The champion's mix of labels before the rollout, for drift that both arms share; None: not looked at."""
    drift_tolerance: float = 1.5
    """Up to this factor a label's share may differ from that mix."""

    def __post_init__(self) -> None:
        if len(set(self.labels)) < 2 or len(set(self.labels)) != len(self.labels):
            raise ValueError(f"labels must be two or more different ones, got {self.labels}")
        _check_shares("budget", self.budget, DEFAULT_BUDGET)
        _check_shares("margin", self.margins, DEFAULT_MARGINS)
        if (total := sum(self.budget.values())) > 0.05 + 1e-12:
            raise ValueError(f"the budgets add up to {total:.4f}, more than 0.05")
        for name in ("promote_alpha", "freeze_alpha", "error_bound", "disagreement_bound"):
            if not 0 < getattr(self, name) < 1:
                raise ValueError(f"{name} must be within 0..1, got {getattr(self, name)}")
        if not 0 < self.promote_p99_ms <= self.roll_back_p99_ms:
            raise ValueError("promote_p99_ms must be positive and at most roll_back_p99_ms")
        if self.window_minutes < 2 or self.window_requests < 1:
            raise ValueError("a window has at least two minutes and one request")
        if self.block_s <= 0 or 60 % self.block_s:
            raise ValueError(f"block_s must divide a minute, got {self.block_s}")
        if not 0 <= self.latency_tolerance < 1 or self.drift_tolerance <= 1:
            raise ValueError("latency_tolerance must be within 0..1 and drift_tolerance above 1")
        self._check_label_shares()

    @property
    def gross_bound(self) -> float:
        """At most one half, where the bound itself is large."""
        return min(self.gross * self.error_bound, max(0.5, self.error_bound))

    def _check_label_shares(self) -> None:
        if self.label_shares is None:
            return
        if set(self.label_shares) - set(self.labels):
            raise ValueError("label_shares names a label that is none of labels")
        if abs(sum(self.label_shares.values()) - 1) > 1e-6 or min(self.label_shares.values()) < 0:
            raise ValueError("label_shares must be shares that add up to 1")


def _check_shares(what: str, shares: Mapping[str, float], default: Mapping[str, float]) -> None:
    if set(shares) != set(default):
        raise ValueError(f"there is a {what} for each of {', '.join(default)}, got {', '.join(shares)}")
    if wrong := [name for name, share in shares.items() if not 0 < share < 1]:
        raise ValueError(f"the {what} of {', '.join(wrong)} is not within 0..1")


EXPLAINER_MARGINS = {**DEFAULT_MARGINS, "errors": 0.05, "invalid_outputs": 0.05}


def explainer_guardrails(labels: tuple[str, ...]) -> GuardrailConfig:
    """Return the guardrails of a language model: seconds, not milliseconds, and a checker that refuses texts.

    A refusal harms no reader, since the template answers then; the comparison with the champion decides, and the
    absolute bound only says that a model is of no use.
    """
    return GuardrailConfig(
        labels=labels,
        margins=EXPLAINER_MARGINS,
        error_bound=0.2,
        promote_p99_ms=15_000.0,
        roll_back_p99_ms=30_000.0,
    )


@dataclass(frozen=True, kw_only=True)
class Step:
    """One step of a ramp, and what has to be there before the next."""

    share: float
    """The canary's weight; at 0 it is only shown mirrored images."""
    minutes: float = 5.0
    """At least this long."""
    requests: int = 0
    """At least as many canary requests."""
    pairs: int = 0
    """At least as many mirrored images."""
    non_inferior: bool = True
    """Whether everything has to be shown to be within its margin."""

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1 or min(self.minutes, self.requests, self.pairs) < 0:
            raise ValueError("a step needs a share within 0..1 and nothing negative")
        if not math.isfinite(self.minutes):
            raise ValueError(f"a step ends some time: it cannot last {self.minutes} minutes")


RAMP = (
    Step(share=0.0, minutes=1, pairs=50, non_inferior=False),
    Step(share=0.01, minutes=2, requests=10, non_inferior=False),
    Step(share=0.10, requests=100),
    Step(share=0.50, requests=100),
    Step(share=1.0, requests=100),
)
"""Mirrored, 1, 10, 50, 100 %. From 10 % on non-inferiority is required: below, it takes too long to reach."""
