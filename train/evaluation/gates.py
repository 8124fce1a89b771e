"""The gates of a model version: figures in, one verdict a gate out. `train.evaluation.gate_config` has the thresholds.

The taxonomy says which classes are required. Pure arithmetic: knows neither Ray nor torch. A verdict that halts the
pipeline says so; `target` never halts. docs/evaluation.md explains each figure.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from train.evaluation.gate_config import GateError, Gates
from train.metrics.bootstrap import Estimate
from train.metrics.gate_inputs import Behaviour, ClassCount, Comparison, Gap, GateInputs, Remaining

Verdict = Literal["pass", "fail", "not evaluable"]
REMEDY = "add patients of it, or take it off that list if this service need not know it"


@dataclass(frozen=True, kw_only=True)
class GateResult:
    name: str
    family: str
    """Its name in `Gates.reported`."""
    verdict: Verdict
    measured: float | None
    low: float | None = None
    """Of the 95 % interval over groups; None without one."""
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


def judge(measured: GateInputs, gates: Gates, environment: str) -> list[GateResult]:
    """Judge all gates, in reading order.

    Raises:
        GateError: no block is set for the environment.
    """
    if environment not in gates.block:
        raise GateError(f"no block for the environment {environment!r}; there are {', '.join(gates.block)}")
    bench = _Bench(gates=gates, environment=environment)
    return [
        bench.accuracy("accuracy", measured, gates.block[environment], f"the block of {environment}"),
        bench.accuracy("target", measured, gates.target, "the target, which never blocks"),
        *(bench.floor(item) for item in measured.classes),
        bench.champion(measured.champion),
        bench.calibration(measured.calibration_error),
        bench.conformal(measured),
        *(bench.subgroup(item) for item in measured.subgroups),
        *(bench.shortcut(item) for item in measured.shortcuts),
        *(bench.behaved(item) for item in measured.behaviour),
    ]


def overall(results: Sequence[GateResult]) -> Literal["pass", "fail"]:
    """Return `fail` if any gate halts."""
    return "fail" if any(result.halts for result in results) else "pass"


@dataclass(frozen=True, kw_only=True)
class _Bench:
    """Judges one gate after the other, under the rules of one environment."""

    gates: Gates
    environment: str

    def accuracy(self, name: str, measured: GateInputs, threshold: float, what: str) -> GateResult:
        estimate = measured.accuracy
        verdict: Verdict = "not evaluable"
        why = "the test split has no image"
        if estimate is not None:
            verdict = "pass" if estimate.value >= threshold else "fail"
            why = f"test accuracy {_shown(estimate)} {'>=' if verdict == 'pass' else '<'} {threshold:.2f}, {what}"
        halts = verdict != "pass" and self._blocks(name)
        return _result(name, name, verdict, estimate, threshold, halts=halts, why=why)

    def floor(self, count: ClassCount) -> GateResult:
        gates = self.gates
        verdict: Verdict = "not evaluable"
        required = count.label in gates.required_classes
        if count.recall is None or count.images < gates.floor_images or count.groups < gates.floor_groups:
            halts = required
            why = (
                f"{count.label} has {count.images} test images of {count.groups} groups, the floor needs "
                f"{gates.floor_images} of {gates.floor_groups}"
                + (f"; it is one of gates.required_classes, so this halts: {REMEDY}" if required else "")
            )
        else:
            verdict = "pass" if count.recall >= gates.recall_floor else "fail"
            halts = verdict == "fail"
            sign = "<" if halts else ">="
            why = f"recall of {count.label} {count.recall:.3f} {sign} {gates.recall_floor:.2f}"
        return GateResult(
            name=f"recall_{count.label}",
            family="recall",
            verdict=verdict,
            measured=count.recall,
            threshold=gates.recall_floor,
            images=count.images,
            groups=count.groups,
            halts=halts and self._blocks("recall"),
            why=why,
        )

    def champion(self, comparison: Comparison) -> GateResult:
        """Judge the comparison; it halts if there is a champion that cannot be compared with."""
        gates, difference, threshold = self.gates, comparison.difference, -self.gates.champion_margin
        verdict: Verdict = "not evaluable"
        halts = False
        if difference is None or comparison.bound is None:
            why = comparison.why_not or "there is no other champion to compare with"
            halts = comparison.champion is not None and self._blocks("champion")
        elif difference.images < gates.champion_images:
            why = f"{difference.images} test images; {gates.champion_images} are needed to compare with the champion"
        else:
            verdict = "pass" if comparison.bound > threshold else "fail"
            halts = self._halts(verdict, "champion", beyond_chance=difference.high < 0)
            why = (
                f"accuracy minus that of champion {comparison.champion} {_shown(difference)}, right where it is wrong "
                f"{comparison.only_right} times, wrong where it is right {comparison.only_wrong} times: "
                f"lower 95 % bound {comparison.bound:.3f} {'>' if verdict == 'pass' else '<='} {threshold:.2f}"
            )
        result = _result("champion", "champion", verdict, difference, threshold, halts=halts, why=why)
        return replace(result, measured=comparison.bound)

    def calibration(self, estimate: Estimate | None) -> GateResult:
        what, limit = "expected calibration error", self.gates.calibration_error
        least = self.gates.calibration_images
        return self._at_most("calibration", "calibration", estimate, limit, what, least_images=least)

    def conformal(self, measured: GateInputs) -> GateResult:
        coverage, promised = measured.coverage, measured.promised_coverage
        verdict: Verdict = "not evaluable"
        if coverage is None or coverage.images < self.gates.calibration_images:
            why = f"{coverage.images if coverage else 0} test images, {self.gates.calibration_images} are needed"
        else:
            verdict = "pass" if coverage.low <= promised <= coverage.high else "fail"
            why = (
                f"conformal sets hold the truth in {_shown(coverage)}; the promised {promised:.2f} lies "
                f"{'inside' if verdict == 'pass' else 'outside'}"
            )
        # coverage above the promise does no harm, and happens by chance in one of forty
        too_little = coverage is not None and coverage.high < promised
        halts = self._halts(verdict, "conformal", beyond_chance=too_little)
        return _result("conformal", "conformal", verdict, coverage, promised, halts=halts, why=why)

    def subgroup(self, gap: Gap) -> GateResult:
        what = f"more findings missed in {gap.most} than in {gap.least}: gap in false-normal rate"
        why_not = (
            f"no two subgroups by {gap.attribute} have {self.gates.subgroup_images} test images with a finding "
            f"(the second largest has {gap.images})"
        )
        name, limit = f"subgroup_{gap.attribute}", self.gates.subgroup_gap
        judged = self._at_most(name, "subgroup", gap.estimate, limit, what, why_not=why_not)
        return replace(judged, images=gap.images)

    def shortcut(self, remaining: Remaining) -> GateResult:
        what = (
            f"balanced accuracy {remaining.masked:.2f} with {remaining.name.replace('_', ' ')}, "
            f"{remaining.full:.2f} on the whole films, {remaining.chance:.2f} by chance: share left"
        )
        name, limit = f"shortcut_{remaining.name}", self.gates.shortcut_left
        judged = self._at_most(name, "shortcut", remaining.left, limit, what, why_not=remaining.why_not)
        return replace(judged, images=remaining.images)

    def behaved(self, behaviour: Behaviour) -> GateResult:
        estimate, least = behaviour.estimate, self.gates.behaviour[behaviour.name]
        verdict: Verdict = "not evaluable"
        name, halts = f"behaviour_{behaviour.name}", False
        if estimate is None or estimate.images < self.gates.behaviour_images:
            why = behaviour.why_not or _too_few(estimate, self.gates.behaviour_images)
        else:
            verdict = "pass" if estimate.value >= least else "fail"
            halts = self._halts(verdict, behaviour.family, beyond_chance=estimate.high < least)
            sign = ">=" if verdict == "pass" else "<"
            why = f"share of images that behave as they should {_shown(estimate)} {sign} {least:.2f}"
        return _result(name, behaviour.family, verdict, estimate, least, halts=halts, why=why)

    def _at_most(
        self,
        name: str,
        family: str,
        estimate: Estimate | None,
        limit: float,
        what: str,
        *,
        least_images: int = 1,
        why_not: str = "",
    ) -> GateResult:
        verdict: Verdict = "not evaluable"
        halts = False
        if estimate is None or estimate.images < least_images:
            why = why_not or _too_few(estimate, least_images)
        else:
            verdict = "pass" if estimate.value <= limit else "fail"
            halts = self._halts(verdict, family, beyond_chance=estimate.low > limit)
            why = f"{what} {_shown(estimate)} {'<=' if verdict == 'pass' else '>'} {limit:.2f}"
        return _result(name, family, verdict, estimate, limit, halts=halts, why=why)

    def _blocks(self, family: str) -> bool:
        return family != "target" and family not in self.gates.reported.get(self.environment, ())

    def _halts(self, verdict: Verdict, family: str, *, beyond_chance: bool) -> bool:
        """Return True if a verdict on a figure with an interval stops the pipeline."""
        strict = self.environment not in self.gates.beyond_chance
        return verdict == "fail" and self._blocks(family) and (strict or beyond_chance)


def _result(
    name: str,
    family: str,
    verdict: Verdict,
    estimate: Estimate | None,
    threshold: float,
    *,
    halts: bool,
    why: str,
) -> GateResult:
    return GateResult(
        name=name,
        family=family,
        verdict=verdict,
        measured=estimate.value if estimate else None,
        low=estimate.low if estimate else None,
        high=estimate.high if estimate else None,
        threshold=threshold,
        images=estimate.images if estimate else 0,
        groups=estimate.groups if estimate else 0,
        halts=halts,
        why=why,
    )


def _too_few(estimate: Estimate | None, least_images: int) -> str:
    return f"{estimate.images if estimate else 0} test images, {least_images} are needed"


def _shown(estimate: Estimate) -> str:
    return f"{estimate.value:.3f} (95 % interval {estimate.low:.3f} to {estimate.high:.3f})"
