"""A rollout as the controller sees it: its plan, which is a list of steps and the guardrails, and its state.

Blue/green is a plan of two steps, an instant cut-over one of a single step. Pure; no database, Ray or torch.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from typing import Any, Literal

from cluster.expected import ExpectedError
from serve.canary.guardrails import DEFAULT_BUDGET, DEFAULT_MARGINS, RAMP, GuardrailConfig, Step
from serve.canary.observations import MirroredPair, Observation, first_attempts, mirrored_pairs

State = Literal["starting", "running", "paused", "promoted", "rolled_back"]
OperatorCommand = Literal["promote", "pause", "resume", "rollback"]
FORMAT = 1
"""Of stored plans. One that names none is of format 1 too."""
NEXT_TO_NOTHING = 1e-12
STARTING = -1
"""The step before the first one, in which replicas are started."""
AT_ONCE = (Step(share=1.0, minutes=0, non_inferior=False),)
"""An instant cut-over: what a return to an earlier version is."""
BLUE_GREEN = (
    Step(share=0.0, minutes=5, pairs=200, non_inferior=False),
    Step(share=1.0, minutes=10, requests=100),
)
"""All images mirrored first, then all traffic at once, with the champion warm until the promotion."""
RAMPS: dict[str, tuple[Step, ...]] = {"canary": RAMP, "blue_green": BLUE_GREEN, "at_once": AT_ONCE}


class PlanFormatError(ExpectedError):
    """A stored plan of a later version; the message says so."""


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
        shares = [step.share for step in self.steps]
        if shares != sorted(shares):
            raise ValueError(f"the shares of the steps must not fall, got {shares}")
        if not 0 < self.mirror <= 1 or self.ready_s <= 0:
            raise ValueError("mirror must be within 0..1 and ready_s positive")

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON in format 1.

        It does not name its format: versions that serve still, with code of before there were formats, refuse a plan
        with an unknown key. A plan in another format names it.
        """
        guardrails = asdict(self.guardrails)
        guardrails["spell_s"] = guardrails.pop("block_s")
        return {**asdict(self), "guardrails": guardrails}

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> "Plan":
        """Read a plan in any format in which one was ever stored.

        Raises:
            PlanFormatError: it was stored by a later version.
        """
        version = stored.get("format", FORMAT)
        if version != FORMAT:
            raise PlanFormatError(f"this plan has format {version}, and this version reads {FORMAT}")
        values = {name: value for name, value in stored.items() if name != "format"}
        guardrails = dict(values["guardrails"])
        guardrails["block_s"] = guardrails.pop("spell_s")
        guardrails["budget"] = _read_budget(guardrails["budget"])
        guardrails["margins"] = {
            name: guardrails["margins"].get(name, default) for name, default in DEFAULT_MARGINS.items()
        }
        guardrails["labels"] = tuple(guardrails["labels"])
        steps = tuple(Step(**step) for step in values["steps"])
        return cls(**{**values, "guardrails": GuardrailConfig(**guardrails), "steps": steps})


def _read_budget(stored: Mapping[str, float]) -> dict[str, float]:
    """Read a budget; a guardrail that is newer than the plan gets next to none, since all of it was given away.

    For a short time `gross_errors` had a budget of its own, which is a part of `frozen_errors` since.
    """
    budget = {name: stored.get(name, NEXT_TO_NOTHING) for name in DEFAULT_BUDGET}
    budget["frozen_errors"] += stored.get("gross_errors", 0.0)
    return budget


def steps_of(wanted: str | list[Any] | None) -> tuple[Step, ...]:
    """Return the steps that an operator asks for: a name of `RAMPS`, a list of shares, or of steps as objects.

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
        return tuple(Step(**step) if isinstance(step, dict) else _step(float(step)) for step in wanted)
    except TypeError as error:
        raise ValueError(
            "steps are a name, or a list of shares between 0 and 1, or of objects with share, minutes, requests, pairs "
            "and non_inferior"
        ) from error


def without_images(steps: tuple[Step, ...]) -> tuple[Step, ...]:
    """Return the steps for a language model, which gets no mirrored traffic: no pairs, and no step at 0.

    At 100 % there is no champion to compare with, and no absolute share of refused texts is asked for.
    Raises:
        ValueError: nothing is left.
    """
    with_traffic = tuple(
        replace(step, pairs=0, non_inferior=step.non_inferior and step.share < 1)
        for step in steps
        if step.share
    )
    if not with_traffic:
        raise ValueError("a language model is shown no mirrored images: its steps need a share above 0")
    return with_traffic


def _step(share: float) -> Step:
    """Return the step of the usual ramp with this share, else one like its neighbours."""
    usual = {step.share: step for step in RAMP}
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
    wish: OperatorCommand | None = None
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
        """The present step; None while its replicas are started."""
        return None if self.step == STARTING else self.steps[self.step]

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> "Rollout":
        return cls(**{**row, "plan": Plan.from_dict(row["plan"])})


def mirror_of(plan: Plan, step: Step) -> float:
    """Return the share of the others' requests that the canary is shown during a step."""
    return plan.mirror if step.share == 0 else plan.mirror / 10 if step.share < 1 else 0.0


def observations(rollout: Rollout, rows: Iterable[Mapping[str, Any]]) -> list[Observation]:
    """Read what rows of `serve.ledger.reader` say about canary and champion
    (`serve.canary.observations.first_attempts`).
    """
    return first_attempts(rows, model=rollout.model, canary=rollout.version, champion=rollout.champion)


def pairs(rollout: Rollout, rows: Iterable[Mapping[str, Any]]) -> list[MirroredPair]:
    """Read what mirrored images say about them (`serve.canary.observations.mirrored_pairs`)."""
    return mirrored_pairs(rows, model=rollout.model, canary=rollout.version, champion=rollout.champion)
