"""What is watched during a rollout, with which bounds, and how the budget of false rollbacks is split.

The numbers that change a decision, and nothing else; `serve.evidence` gathers, `serve.verdict` decides.
docs/rollout.md says where each comes from.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields


@dataclass(frozen=True, kw_only=True)
class Budget:
    """Probability with which each guardrail may roll back a canary that is as good as the champion."""

    errors: float = 0.024
    """Answers 5xx of the model, and deadlines."""
    mirrored_errors: float = 0.002
    """The same on mirrored images, in pairs."""
    frozen_errors: float = 0.002
    """The same at 100 %, against what the champion was shown to keep earlier in the rollout: half for the absolute
    bound, half for ten times as much (`gross_errors`)."""
    invalid_outputs: float = 0.004
    latency: float = 0.004
    """Share of requests slower than a bound frozen from the champion."""
    abstentions: float = 0.004
    drift: float = 0.004
    """The mix of labels, divided equally among them."""
    disagreement: float = 0.003
    """With the champion on mirrored images."""
    feedback: float = 0.001
    """Physicians who corrected the answer."""
    deaths: float = 0.001
    """Incidents of infrastructure."""
    absolute_errors: float = 0.0005
    absolute_latency: float = 0.0005

    def __post_init__(self) -> None:
        parts = {one.name: getattr(self, one.name) for one in fields(self)}
        if wrong := [name for name, part in parts.items() if not 0 < part < 1]:
            raise ValueError(f"the budget of {', '.join(wrong)} is not within 0..1")
        if self.total > 0.05 + 1e-12:
            raise ValueError(f"the budgets add up to {self.total:.4f}, more than 0.05")

    @property
    def total(self) -> float:
        return sum(getattr(self, one.name) for one in fields(self))


@dataclass(frozen=True, kw_only=True)
class Margins:
    """How much worse than the champion a canary may be and still be promoted, as differences of rates."""

    errors: float = 0.01
    mirrored_errors: float = 0.01
    invalid_outputs: float = 0.01
    latency: float = 0.05
    abstentions: float = 0.05

    def __post_init__(self) -> None:
        if wrong := [one.name for one in fields(self) if not 0 < getattr(self, one.name) < 1]:
            raise ValueError(f"the margin of {', '.join(wrong)} is not within 0..1")


@dataclass(frozen=True, kw_only=True)
class GuardrailConfig:
    labels: tuple[str, ...]
    """The classes, as in the taxonomy."""
    budget: Budget = field(default_factory=Budget)
    margins: Margins = field(default_factory=Margins)
    promote_alpha: float = 0.05
    """Probability with which a canary that is worse by a margin is promoted. It is not split: all must pass."""
    freeze_alpha: float = 0.01
    """Probability of a false freeze for drift of the input, and of a false stop for latency."""
    error_bound: float = 0.01
    """Absolute: more errors and invalid outputs than this over the window are too many."""
    gross: float = 10.0
    """So many times `error_bound` is a rate at which nobody waits for more: it takes few requests to show that the
    champion was below it, so that a quick ramp is guarded at 100 % too."""
    promote_p99_ms: float = 300.0
    """P99 that a promotion needs; above it the ramp stops."""
    roll_back_p99_ms: float = 500.0
    """P99 that rolls back."""
    window_minutes: int = 5
    """How long an absolute bound has to be broken."""
    window_requests: int = 100
    """Canary requests in that time without which no absolute rule speaks."""
    disagreement_bound: float = 0.10
    """Share of mirrored images on which the versions may give different labels."""
    slow_ms: float | None = None
    """What is slow: the champion's 95th percentile, frozen before the rollout; None: of its first 200 requests."""
    latency_tolerance: float = 0.05
    """How much larger the canary's share of slow requests may be before evidence counts against it."""
    spell_s: float = 5.0
    """Latency is compared by spells of this length: one pause of a process makes many requests slow, but one spell."""
    label_shares: Mapping[str, float] | None = None
    """The champion's frozen mix of labels, for drift that both arms share; None: not looked at."""
    drift_tolerance: float = 1.5
    """Up to this factor a label's share may differ from the frozen one."""

    def __post_init__(self) -> None:
        if len(set(self.labels)) < 2 or len(set(self.labels)) != len(self.labels):
            raise ValueError(f"labels must be two or more different ones, got {self.labels}")
        for name in ("promote_alpha", "freeze_alpha", "error_bound", "disagreement_bound"):
            if not 0 < getattr(self, name) < 1:
                raise ValueError(f"{name} must be within 0..1, got {getattr(self, name)}")
        if not 0 < self.promote_p99_ms <= self.roll_back_p99_ms:
            raise ValueError("promote_p99_ms must be positive and at most roll_back_p99_ms")
        if self.window_minutes < 2 or self.window_requests < 1:
            raise ValueError("a window has at least two minutes and one request")
        if self.spell_s <= 0 or 60 % self.spell_s:
            raise ValueError(f"spell_s must divide a minute, got {self.spell_s}")
        if not 0 <= self.latency_tolerance < 1 or self.drift_tolerance <= 1:
            raise ValueError("latency_tolerance must be within 0..1 and drift_tolerance above 1")
        self._check_mix()

    @property
    def gross_bound(self) -> float:
        """At most one half, where the bound itself is large."""
        return min(self.gross * self.error_bound, max(0.5, self.error_bound))

    def _check_mix(self) -> None:
        if self.label_shares is None:
            return
        if set(self.label_shares) - set(self.labels):
            raise ValueError("label_shares names a label that is none of labels")
        if abs(sum(self.label_shares.values()) - 1) > 1e-6 or min(self.label_shares.values()) < 0:
            raise ValueError("label_shares must be shares that add up to 1")


def explainer_guardrails(labels: tuple[str, ...]) -> GuardrailConfig:
    """For versions of the language model: seconds, not milliseconds, and a checker that refuses a text now and then.

    Nobody is hurt by a refusal, since the template answers then; the comparison with the champion decides, and the
    absolute bound only says that a model is of no use.
    """
    return GuardrailConfig(
        labels=labels,
        margins=Margins(errors=0.05, invalid_outputs=0.05),
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
