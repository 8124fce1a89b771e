"""The thresholds of the gates of a model version, checked at construction.

The taxonomy says which classes are required; docs/evaluation.md explains each figure.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from data.taxonomy import taxonomy

FAMILIES = (
    *("accuracy", "target", "recall", "champion", "calibration", "conformal"),
    *("subgroup", "shortcut", "behaviour", "refusal", "load"),
)


class GateError(ValueError):
    """A gate is configured with an impossible number, or asked about an unknown environment."""


def _required() -> tuple[str, ...]:
    return tuple(entry.name for entry in taxonomy().classes if entry.required)


def _block() -> dict[str, float]:
    return {"development": 0.50, "staging": 0.70, "canary": 0.70, "production": 0.70}


def _reported() -> dict[str, tuple[str, ...]]:
    return {"development": ("subgroup", "behaviour")}


def _behaviour() -> dict[str, float]:
    return {
        "rotation": 0.95,
        "brightness": 0.95,
        "border_crop": 0.95,
        "opacity_raises_opacity": 0.90,
        "opacity_lowers_normal": 0.90,
        "region": 0.95,
        "bone_for_chest": 0.95,
        "textbook": 0.80,
        "inverted": 0.95,
        "lateral": 0.95,
        "blank": 0.95,
        "photograph": 0.95,
    }


@dataclass(frozen=True, kw_only=True)
class Gates:
    block: Mapping[str, float] = field(default_factory=_block)
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
    """Default: the taxonomy's required classes. A floor that is not evaluable halts only for these."""
    champion_margin: float = 0.02
    """The lower 95 % bound of the accuracy minus the champion's must lie above minus this."""
    champion_images: int = 100
    """Test images below which no comparison is made."""
    calibration_error: float = 0.05
    """Largest expected calibration error after temperature scaling."""
    calibration_images: int = 100
    """Test images below which calibration error and coverage are not evaluable."""
    subgroup_gap: float = 0.10
    """Largest difference in false-normal rate between two subgroups."""
    subgroup_images: int = 50
    """Test images with a finding that both subgroups need."""
    shortcut_left: float = 0.5
    """Largest share of the accuracy above chance that may remain without the lungs."""
    behaviour: Mapping[str, float] = field(default_factory=_behaviour)
    """Smallest share of images on which each test of behaviour is met."""
    behaviour_images: int = 20
    """Images below which a test is not evaluable."""
    load_p99_ms: float = 300.0
    """A version's P99 under load must lie below this, milliseconds from the due time of a request."""
    load_errors: float = 0.001
    """Largest share of requests under load that may go unanswered."""
    load_throughput: float = 0.95
    """Smallest share of the requested rate that has to be answered."""
    load_requests: int = 100
    """Requests below which a load test is not evaluable."""
    reported: Mapping[str, tuple[str, ...]] = field(default_factory=_reported)
    """By environment, families of gates that are judged and halt nothing there. In development those that neither
    the demo nor a model of a few thousand public X-rays reliably passes (docs/experiments.md)."""
    beyond_chance: tuple[str, ...] = ("development",)
    """Environments in which a gate, other than accuracy and recall, halts only when its 95 % interval lies wholly on
    the wrong side; in the others whatever fails halts."""

    def __post_init__(self) -> None:
        shares = {"target": self.target, "recall_floor": self.recall_floor}
        shares |= {"champion_margin": self.champion_margin, "calibration_error": self.calibration_error}
        shares |= {"subgroup_gap": self.subgroup_gap, "shortcut_left": self.shortcut_left}
        shares |= {"load_errors": self.load_errors, "load_throughput": self.load_throughput}
        shares |= {f"block.{name}": value for name, value in self.block.items()}
        shares |= {f"behaviour.{name}": value for name, value in self.behaviour.items()}
        for name, value in shares.items():
            if not 0 <= value <= 1:
                raise GateError(f"{name} must lie in [0, 1], got {value}")
        if self.load_p99_ms <= 0 or self.load_requests < 1:
            raise GateError(
                f"load_p99_ms must be above 0 and load_requests at least 1, got {self.load_p99_ms} and "
                f"{self.load_requests}"
            )
        if missing := sorted(set(_behaviour()) - set(self.behaviour)):
            raise GateError(f"behaviour lacks a threshold for {', '.join(missing)}")
        named = {family for families in self.reported.values() for family in families}
        if unknown := sorted(named - set(FAMILIES)):
            raise GateError(f"reported names {', '.join(unknown)}; there are {', '.join(FAMILIES)}")
