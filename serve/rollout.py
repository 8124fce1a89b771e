"""One rollout as the controller sees it, and how rows of the ledger become evidence. Pure; no database, Ray or torch.

A plan is a list of steps and the guardrails. Blue/green and an instant cut-over are plans of one step.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from typing import Any, Literal

from serve.guardrails import RAMP, Budget, GuardrailConfig, Margins, Step
from serve.observations import Observation, Pair

State = Literal["starting", "running", "paused", "promoted", "rolled_back"]
Wish = Literal["promote", "pause", "resume", "rollback"]
STARTING = -1
"""The step before the first one, in which replicas are started."""
AT_ONCE = (Step(share=1.0, minutes=0, non_inferior=False),)
"""An instant cut-over: what a return to an earlier version is."""
BLUE_GREEN = (
    Step(share=0.0, minutes=5, pairs=200, non_inferior=False),
    Step(share=1.0, minutes=10, requests=100),
)
"""Shown all images first, then given all traffic at once, with the champion warm until it is promoted."""
RAMPS: dict[str, tuple[Step, ...]] = {"canary": RAMP, "blue_green": BLUE_GREEN, "at_once": AT_ONCE}


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How a version is brought in front of users."""

    guardrails: GuardrailConfig
    steps: tuple[Step, ...] = RAMP
    mirror: float = 1.0
    """Share of the champion's requests that the canary is shown while it has no traffic; a tenth of it later."""
    ready_s: float = 600.0
    """How long its replicas may take to start."""

    def __post_init__(self) -> None:
        if not self.steps:
            raise ValueError("a rollout needs at least one step")
        shares = [one.share for one in self.steps]
        if shares != sorted(shares):
            raise ValueError(f"the shares of the steps must not fall, got {shares}")
        if not 0 < self.mirror <= 1 or self.ready_s <= 0:
            raise ValueError("mirror must be within 0..1 and ready_s positive")

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Plan":
        given = values["guardrails"]
        nested = {"budget": Budget(**given["budget"]), "margins": Margins(**given["margins"])}
        guardrails = GuardrailConfig(**{**given, **nested, "labels": tuple(given["labels"])})
        steps = tuple(Step(**one) for one in values["steps"])
        return cls(**{**values, "guardrails": guardrails, "steps": steps})


def steps_of(wanted: str | list[Any] | None) -> tuple[Step, ...]:
    """Steps as an operator asks for them: a name of `RAMPS`, a list of shares, or of steps as objects.

    Raises:
        ValueError: it is none of these; the message says what would be.
    """
    if wanted is None:
        return RAMP
    if isinstance(wanted, str):
        if wanted not in RAMPS:
            raise ValueError(
                f"there are no steps {wanted!r}; there are {', '.join(RAMPS)}, or give a list of shares"
            )
        return RAMPS[wanted]
    try:
        return tuple(Step(**one) if isinstance(one, dict) else _step(float(one)) for one in wanted)
    except TypeError as error:
        raise ValueError(
            "steps are a name, or a list of shares between 0 and 1, or of objects with share, minutes, requests, pairs "
            "and non_inferior"
        ) from error


def without_images(steps: tuple[Step, ...]) -> tuple[Step, ...]:
    """The same for a language model, who is shown nothing beside the path: no mirrored images, and no step at 0.

    At 100 % there is no champion to be no worse than, and no absolute share of refused texts is asked for.
    Raises:
        ValueError: nothing is left.
    """
    kept = tuple(
        replace(one, pairs=0, non_inferior=one.non_inferior and one.share < 1) for one in steps if one.share
    )
    if not kept:
        raise ValueError("a language model is shown no mirrored images: its steps need a share above 0")
    return kept


def _step(share: float) -> Step:
    """The step of the usual ramp with this share, else one like its neighbours."""
    usual = {one.share: one for one in RAMP}
    if share in usual:
        return usual[share]
    return (
        Step(share=share, requests=100)
        if share >= 0.1
        else Step(share=share, minutes=2, requests=10, non_inferior=False)
    )


@dataclass(frozen=True, kw_only=True)
class Rollout:
    """A row of the table `rollouts`."""

    id: int
    model: str
    version: str
    champion: str
    bundle_key: str
    plan: Plan
    state: State
    step: int
    """Index among the plan's steps; `STARTING` before."""
    started_at: datetime
    started_by: str
    wish: Wish | None = None
    wished_by: str | None = None
    verdict: dict[str, Any] = field(default_factory=dict)
    evidence: dict[str, Any] | None = None
    cursor: int = 0
    aliases_wait: bool = False
    ended_at: datetime | None = None

    @property
    def steps(self) -> tuple[Step, ...]:
        return self.plan.steps

    @property
    def current(self) -> Step | None:
        """The step that it is in; None while its replicas are started."""
        return None if self.step == STARTING else self.steps[self.step]

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> "Rollout":
        return cls(**{**row, "plan": Plan.from_dict(row["plan"])})


def mirror_of(plan: Plan, step: Step) -> float:
    """Share of the others' requests that the canary is shown during a step."""
    return plan.mirror if step.share == 0 else plan.mirror / 10 if step.share < 1 else 0.0


def observations(rollout: Rollout, rows: Iterable[Mapping[str, Any]]) -> list[Observation]:
    """What rows of `serve.ledger` say about canary and champion: each request's first attempt, in order.

    An operator's own choice of a version is left out, as no draw brought that request to it.
    """
    return [
        one for row in rows if row["model"] == rollout.model and (one := _observed(rollout, row)) is not None
    ]


def _observed(rollout: Rollout, row: Mapping[str, Any]) -> Observation | None:
    assignment, first = row["assignment"], row["attempts"][0]
    version, weights = assignment["version"], assignment["weights"]
    if assignment["key"] == "operator" or version not in (rollout.version, rollout.champion):
        return None
    canary, champion = weights.get(rollout.version), weights.get(rollout.champion, 0.0)
    if canary is None or canary + champion <= 0:
        return None
    answered = first["outcome"] == "ok"
    return Observation(
        at=row["created_at"].timestamp(),
        arm="canary" if version == rollout.version else "champion",
        share=canary / (canary + champion),
        outcome=first["outcome"],
        patient=_patient(row),
        incident=first.get("incident"),
        latency_ms=first["latency_ms"],
        abstained=bool(answered and row["abstained"]),
        label=row["label"] if answered else None,
    )


def _patient(row: Mapping[str, Any]) -> str | None:
    """Whose requests are correlated: the patient's, or those of a study whose patient nobody named."""
    pseudonym: str | None = row["patient_pseudonym"] or row["assignment"].get("study")
    return pseudonym


def pairs(rollout: Rollout, rows: Iterable[Mapping[str, Any]]) -> list[Pair]:
    """What mirrored images say: those that were drawn to the champion and shown to the canary too.

    Those in which infrastructure failed are left out.
    """
    return [one for row in rows if row["model"] == rollout.model and (one := _pair(rollout, row)) is not None]


def _pair(rollout: Rollout, row: Mapping[str, Any]) -> Pair | None:
    served, shown = row["served"], row["shown"]
    drawn = row["assignment"]["version"] == served["version"] == rollout.champion
    if row["assignment"]["key"] == "operator":  # nobody drew it: one image a hundred times, for all we know
        return None
    if not drawn or shown["version"] != rollout.version:
        return None
    if "infrastructure" in (served["outcome"], shown["outcome"]):
        return None
    canary_failed, champion_failed = shown["outcome"] != "ok", served["outcome"] != "ok"
    both = not (canary_failed or champion_failed)
    return Pair(
        at=row["created_at"].timestamp(),
        patient=_patient(row),
        canary_failed=canary_failed,
        champion_failed=champion_failed,
        agree=served["label"] == shown["label"] if both else None,
    )
