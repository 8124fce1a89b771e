"""The gates of a model version: measured figures in, a verdict for each out. Every number is here.

Which classes are required is in the taxonomy. Pure arithmetic: knows neither Ray nor torch. A gate that halts the
pipeline says so; `target` never does.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from data.taxonomy import taxonomy

Verdict = Literal["pass", "fail", "not evaluable"]
REMEDY = "add patients of it, or take it off that list if this service need not know it"


class GateError(ValueError):
    """A gate is configured with an impossible number, or asked about an unknown environment."""


def _required() -> tuple[str, ...]:
    return tuple(one.name for one in taxonomy().classes if one.required)


def _blocks() -> dict[str, float]:
    return {"development": 0.50, "staging": 0.70, "canary": 0.70, "production": 0.70}


@dataclass(frozen=True, kw_only=True)
class Gates:
    block: Mapping[str, float] = field(default_factory=_blocks)
    """Smallest test accuracy by environment; the point estimate decides."""
    target: float = 0.90
    """Test accuracy to aim at; reported, never blocks."""
    recall_floor: float = 0.50
    """Smallest recall of each class."""
    floor_images: int = 30
    """Test images of a class below which its floor is not evaluable ..."""
    floor_groups: int = 20
    """... and groups (patients or near-duplicates)."""
    required_classes: tuple[str, ...] = field(default_factory=_required)
    """Default: those that the taxonomy says are required. A floor that is not evaluable halts only for these."""

    def __post_init__(self) -> None:
        shares = {"target": self.target, "recall_floor": self.recall_floor}
        shares |= {f"block.{name}": value for name, value in self.block.items()}
        for name, value in shares.items():
            if not 0 <= value <= 1:
                raise GateError(f"{name} must lie in [0, 1], got {value}")


@dataclass(frozen=True, kw_only=True)
class ClassCount:
    """What the floor of one class looks at."""

    label: str
    recall: float | None
    images: int
    groups: int


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What the gates look at, all of it on the test split."""

    accuracy: float | None
    """None when the split is empty."""
    low: float | None
    """Of the 95 % interval over groups; shown, never decides."""
    high: float | None
    images: int
    groups: int
    classes: Sequence[ClassCount]


@dataclass(frozen=True, kw_only=True)
class GateResult:
    name: str
    verdict: Verdict
    measured: float | None
    threshold: float
    images: int
    groups: int
    halts: bool
    """Whether this verdict stops the pipeline."""
    why: str
    """One line."""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def judge(measured: Measured, gates: Gates, environment: str) -> list[GateResult]:
    """All gates, in the order in which they are to be read.

    Raises:
        GateError: no block is set for the environment.
    """
    if environment not in gates.block:
        raise GateError(f"no block for the environment {environment!r}; there are {', '.join(gates.block)}")
    block = gates.block[environment]
    return [
        _accuracy("accuracy", measured, block, f"the block of {environment}", halting=True),
        _accuracy("target", measured, gates.target, "the target, which never blocks", halting=False),
        *(_floor(one, gates) for one in measured.classes),
    ]


def overall(results: Sequence[GateResult]) -> Literal["pass", "fail"]:
    """`fail` when any gate halts."""
    return "fail" if any(one.halts for one in results) else "pass"


def _accuracy(name: str, measured: Measured, threshold: float, what: str, *, halting: bool) -> GateResult:
    verdict: Verdict
    if measured.accuracy is None:
        verdict, why = "not evaluable", "the test split has no image"
    else:
        verdict = "pass" if measured.accuracy >= threshold else "fail"
        sign = ">=" if verdict == "pass" else "<"
        why = (
            f"test accuracy {measured.accuracy:.3f} (95 % interval {measured.low:.3f} to {measured.high:.3f}) "
            f"{sign} {threshold:.2f}, {what}"
        )
    return GateResult(
        name=name,
        verdict=verdict,
        measured=measured.accuracy,
        threshold=threshold,
        images=measured.images,
        groups=measured.groups,
        halts=halting and verdict != "pass",
        why=why,
    )


def _floor(one: ClassCount, gates: Gates) -> GateResult:
    verdict: Verdict
    required = one.label in gates.required_classes
    if one.recall is None or one.images < gates.floor_images or one.groups < gates.floor_groups:
        verdict, halts = "not evaluable", required
        why = (
            f"{one.label} has {one.images} test images of {one.groups} groups, the floor needs "
            f"{gates.floor_images} of {gates.floor_groups}"
            + (f"; it is one of gates.required_classes, so this halts: {REMEDY}" if required else "")
        )
    else:
        verdict = "pass" if one.recall >= gates.recall_floor else "fail"
        halts = verdict == "fail"
        why = f"recall of {one.label} {one.recall:.3f} {'<' if halts else '>='} {gates.recall_floor:.2f}"
    return GateResult(
        name=f"recall_{one.label}",
        verdict=verdict,
        measured=one.recall,
        threshold=gates.recall_floor,
        images=one.images,
        groups=one.groups,
        halts=halts,
        why=why,
    )
