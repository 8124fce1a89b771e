"""The gates of a model version: measured figures in, a verdict for each out. Every number is here.

Which classes are required is in the taxonomy. Pure arithmetic: knows neither Ray nor torch. A gate that halts the
pipeline says so; `target` never does. docs/evaluation.md tells what each figure is.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from data.taxonomy import taxonomy
from train.bootstrap import Estimate
from train.measured import Behaviour, ClassCount, Comparison, Gap, Measured, Remaining

Verdict = Literal["pass", "fail", "not evaluable"]
REMEDY = "add patients of it, or take it off that list if this service need not know it"
FAMILIES = (
    *("accuracy", "target", "recall", "champion", "calibration", "conformal"),
    *("subgroup", "shortcut", "behaviour", "refusal", "load"),
)


class GateError(ValueError):
    """A gate is configured with an impossible number, or asked about an unknown environment."""


def _required() -> tuple[str, ...]:
    return tuple(one.name for one in taxonomy().classes if one.required)


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
    """Default: those that the taxonomy says are required. A floor that is not evaluable halts only for these."""
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
    """Test images with a finding that both must have."""
    shortcut_left: float = 0.5
    """Largest share of what is above chance that a model may know without the lungs."""
    behaviour: Mapping[str, float] = field(default_factory=_behaviour)
    """Smallest share of images on which each test of behaviour is met."""
    behaviour_images: int = 20
    """Images below which a test is not evaluable."""
    load_p99_ms: float = 300.0
    """A version's P99 under load must lie below this, milliseconds from when a request was due."""
    load_errors: float = 0.001
    """Largest share of requests under load that the version may leave unanswered."""
    load_throughput: float = 0.95
    """Smallest share of the requests a second that were wanted which it has to answer."""
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


@dataclass(frozen=True, kw_only=True)
class GateResult:
    name: str
    family: str
    """What `Gates.reported` calls it by."""
    verdict: Verdict
    measured: float | None
    low: float | None = None
    """Of the 95 % interval over groups; None where there is none."""
    high: float | None = None
    threshold: float
    images: int
    groups: int
    halts: bool = False
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
    bench = _Bench(gates=gates, environment=environment)
    return [
        bench.accuracy("accuracy", measured, gates.block[environment], f"the block of {environment}"),
        bench.accuracy("target", measured, gates.target, "the target, which never blocks"),
        *(bench.floor(one) for one in measured.classes),
        bench.champion(measured.champion),
        bench.calibration(measured.calibration_error),
        bench.conformal(measured),
        *(bench.subgroup(one) for one in measured.subgroups),
        *(bench.shortcut(one) for one in measured.shortcuts),
        *(bench.behaved(one) for one in measured.behaviour),
    ]


def overall(results: Sequence[GateResult]) -> Literal["pass", "fail"]:
    """`fail` when any gate halts."""
    return "fail" if any(one.halts for one in results) else "pass"


@dataclass(frozen=True, kw_only=True)
class _Bench:
    """One verdict after the other, under the rules of one environment."""

    gates: Gates
    environment: str

    def accuracy(self, name: str, measured: Measured, threshold: float, what: str) -> GateResult:
        found = measured.accuracy
        verdict: Verdict = "not evaluable"
        why = "the test split has no image"
        if found is not None:
            verdict = "pass" if found.value >= threshold else "fail"
            why = (
                f"test accuracy {_shown(found)} {'>=' if verdict == 'pass' else '<'} {threshold:.2f}, {what}"
            )
        halts = verdict != "pass" and self._blocks(name)
        return _result(name, name, verdict, found, threshold, halts=halts, why=why)

    def floor(self, one: ClassCount) -> GateResult:
        gates = self.gates
        verdict: Verdict = "not evaluable"
        required = one.label in gates.required_classes
        if one.recall is None or one.images < gates.floor_images or one.groups < gates.floor_groups:
            halts = required
            why = (
                f"{one.label} has {one.images} test images of {one.groups} groups, the floor needs "
                f"{gates.floor_images} of {gates.floor_groups}"
                + (f"; it is one of gates.required_classes, so this halts: {REMEDY}" if required else "")
            )
        else:
            verdict = "pass" if one.recall >= gates.recall_floor else "fail"
            halts = verdict == "fail"
            sign = "<" if halts else ">="
            why = f"recall of {one.label} {one.recall:.3f} {sign} {gates.recall_floor:.2f}"
        return GateResult(
            name=f"recall_{one.label}",
            family="recall",
            verdict=verdict,
            measured=one.recall,
            threshold=gates.recall_floor,
            images=one.images,
            groups=one.groups,
            halts=halts and self._blocks("recall"),
            why=why,
        )

    def champion(self, one: Comparison) -> GateResult:
        """A champion that is there and cannot be compared with halts: nobody knows that the model is no worse."""
        gates, found, threshold = self.gates, one.difference, -self.gates.champion_margin
        verdict: Verdict = "not evaluable"
        halts = False
        if found is None or one.bound is None:
            why = one.why_not or "there is no other champion to compare with"
            halts = one.champion is not None and self._blocks("champion")
        elif found.images < gates.champion_images:
            why = (
                f"{found.images} test images; {gates.champion_images} are needed to compare with the champion"
            )
        else:
            verdict = "pass" if one.bound > threshold else "fail"
            halts = self._halts(verdict, "champion", beyond_chance=found.high < 0)
            why = (
                f"accuracy minus that of champion {one.champion} {_shown(found)}, right where it is wrong "
                f"{one.only_right} times, wrong where it is right {one.only_wrong} times: lower 95 % bound "
                f"{one.bound:.3f} {'>' if verdict == 'pass' else '<='} {threshold:.2f}"
            )
        result = _result("champion", "champion", verdict, found, threshold, halts=halts, why=why)
        return replace(result, measured=one.bound)

    def calibration(self, found: Estimate | None) -> GateResult:
        what, limit = "expected calibration error", self.gates.calibration_error
        least = self.gates.calibration_images
        return self._at_most("calibration", "calibration", found, limit, what, least_images=least)

    def conformal(self, measured: Measured) -> GateResult:
        found, promised = measured.coverage, measured.promised_coverage
        verdict: Verdict = "not evaluable"
        if found is None or found.images < self.gates.calibration_images:
            why = f"{found.images if found else 0} test images, {self.gates.calibration_images} are needed"
        else:
            verdict = "pass" if found.low <= promised <= found.high else "fail"
            why = (
                f"conformal sets hold the truth in {_shown(found)}; the promised {promised:.2f} lies "
                f"{'inside' if verdict == 'pass' else 'outside'}"
            )
        too_little = (
            found is not None and found.high < promised
        )  # too much is no harm, and chance in one of forty
        halts = self._halts(verdict, "conformal", beyond_chance=too_little)
        return _result("conformal", "conformal", verdict, found, promised, halts=halts, why=why)

    def subgroup(self, one: Gap) -> GateResult:
        what = f"more findings missed in {one.most} than in {one.least}: gap in false-normal rate"
        why_not = (
            f"no two subgroups by {one.attribute} have {self.gates.subgroup_images} test images with a finding "
            f"(the second largest has {one.images})"
        )
        name, limit = f"subgroup_{one.attribute}", self.gates.subgroup_gap
        judged = self._at_most(name, "subgroup", one.estimate, limit, what, why_not=why_not)
        return replace(judged, images=one.images)

    def shortcut(self, one: Remaining) -> GateResult:
        what = (
            f"balanced accuracy {one.masked:.2f} with {one.name.replace('_', ' ')}, {one.full:.2f} on the whole "
            f"films, {one.chance:.2f} by chance: share left"
        )
        name, limit = f"shortcut_{one.name}", self.gates.shortcut_left
        judged = self._at_most(name, "shortcut", one.left, limit, what, why_not=one.why_not)
        return replace(judged, images=one.images)

    def behaved(self, one: Behaviour) -> GateResult:
        found, least = one.estimate, self.gates.behaviour[one.name]
        verdict: Verdict = "not evaluable"
        name, halts = f"behaviour_{one.name}", False
        if found is None or found.images < self.gates.behaviour_images:
            why = one.why_not or _too_few(found, self.gates.behaviour_images)
        else:
            verdict = "pass" if found.value >= least else "fail"
            halts = self._halts(verdict, one.family, beyond_chance=found.high < least)
            sign = ">=" if verdict == "pass" else "<"
            why = f"share of images that behave as they should {_shown(found)} {sign} {least:.2f}"
        return _result(name, one.family, verdict, found, least, halts=halts, why=why)

    def _at_most(
        self,
        name: str,
        family: str,
        found: Estimate | None,
        limit: float,
        what: str,
        *,
        least_images: int = 1,
        why_not: str = "",
    ) -> GateResult:
        verdict: Verdict = "not evaluable"
        halts = False
        if found is None or found.images < least_images:
            why = why_not or _too_few(found, least_images)
        else:
            verdict = "pass" if found.value <= limit else "fail"
            halts = self._halts(verdict, family, beyond_chance=found.low > limit)
            why = f"{what} {_shown(found)} {'<=' if verdict == 'pass' else '>'} {limit:.2f}"
        return _result(name, family, verdict, found, limit, halts=halts, why=why)

    def _blocks(self, family: str) -> bool:
        return family != "target" and family not in self.gates.reported.get(self.environment, ())

    def _halts(self, verdict: Verdict, family: str, *, beyond_chance: bool) -> bool:
        """Whether a verdict on a figure with an interval stops the pipeline."""
        strict = self.environment not in self.gates.beyond_chance
        return verdict == "fail" and self._blocks(family) and (strict or beyond_chance)


def _result(
    name: str,
    family: str,
    verdict: Verdict,
    found: Estimate | None,
    threshold: float,
    *,
    halts: bool,
    why: str,
) -> GateResult:
    return GateResult(
        name=name,
        family=family,
        verdict=verdict,
        measured=found.value if found else None,
        low=found.low if found else None,
        high=found.high if found else None,
        threshold=threshold,
        images=found.images if found else 0,
        groups=found.groups if found else 0,
        halts=halts,
        why=why,
    )


def _too_few(found: Estimate | None, least_images: int) -> str:
    return f"{found.images if found else 0} test images, {least_images} are needed"


def _shown(found: Estimate) -> str:
    return f"{found.value:.3f} (95 % interval {found.low:.3f} to {found.high:.3f})"
