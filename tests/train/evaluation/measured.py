"""Figures of a good model, and the gates' judgement of them."""

from dataclasses import replace
from typing import Any

from train.evaluation.gates import GateResult, Gates, judge
from train.metrics.bootstrap import Estimate
from train.metrics.gate_inputs import Behaviour, ClassCount, Comparison, Gap, GateInputs, Remaining

GATES = Gates()


def estimate(value: float, half: float = 0.02, images: int = 500) -> Estimate:
    return Estimate(value=value, low=value - half, high=value + half, images=images, groups=300)


def compared(value: float, half: float = 0.02) -> Comparison:
    return Comparison(champion="7", difference=estimate(value, half), bound=value - 0.8 * half)


GOOD = GateInputs(
    accuracy=estimate(0.92),
    classes=[ClassCount(label=name, recall=0.8, images=60, groups=40) for name in GATES.required_classes],
    calibration_error=estimate(0.02, 0.01),
    coverage=estimate(0.91, 0.03),
    champion=compared(0.01),
    subgroups=[Gap(attribute="sex", estimate=estimate(0.03), most="F", least="M", images=120)],
    shortcuts=[
        Remaining(
            name="lungs_masked", images=300, full=0.9, masked=0.2, chance=0.125, left=estimate(0.1, 0.05)
        )
    ],
    behaviour=[Behaviour(name=name, estimate=estimate(0.98, 0.01, images=60)) for name in GATES.behaviour],
)


def by_name(results: list[GateResult]) -> dict[str, GateResult]:
    return {one.name: one for one in results}


def gate(name: str, environment: str = "production", gates: Gates = GATES, **change: Any) -> GateResult:
    return by_name(judge(replace(GOOD, **change), gates, environment))[name]
