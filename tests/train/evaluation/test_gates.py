"""Verdicts as arithmetic; tests/train/metrics/test_defects.py shows each gate failing by a model that has the
defect.
"""

import json
from dataclasses import replace
from typing import Any

import pytest

from tests.train.evaluation.measured import GATES, GOOD, by_name, compared, estimate, gate
from train.evaluation.gates import Gates, judge, overall
from train.metrics.gate_inputs import Behaviour, ClassCount, Comparison, Gap, GateInputs, Remaining


def with_class(**change: object) -> GateInputs:
    return replace(GOOD, classes=[replace(GOOD.classes[0], **change), *GOOD.classes[1:]])  # type: ignore[arg-type]


def test_a_good_model_passes_every_gate_everywhere() -> None:
    for environment in GATES.block:
        results = judge(GOOD, GATES, environment)
        assert {one.verdict for one in results} == {"pass"}
        assert overall(results) == "pass"
        assert len(results) == 2 + 5 + 3 + 1 + 1 + len(GATES.behaviour)


def test_accuracy_below_the_block_halts() -> None:
    found = gate("accuracy", "development", accuracy=estimate(0.49))
    assert (found.verdict, found.halts, found.threshold, found.images) == ("fail", True, 0.50, 500)
    assert "0.490 (95 % interval 0.470 to 0.510)" in found.why


def test_accuracy_on_the_block_passes_whatever_its_interval() -> None:
    assert gate("accuracy", "development", accuracy=estimate(0.50)).verdict == "pass"


@pytest.mark.parametrize("environment", ["staging", "canary", "production"])
def test_the_block_is_higher_outside_development(environment: str) -> None:
    fair = replace(GOOD, accuracy=estimate(0.65))
    assert overall(judge(fair, GATES, "development")) == "pass"
    assert by_name(judge(fair, GATES, environment))["accuracy"].halts


def test_missing_the_target_is_said_and_halts_nothing() -> None:
    found = gate("target", accuracy=estimate(0.89))
    assert (found.verdict, found.halts) == ("fail", False)
    assert overall(judge(replace(GOOD, accuracy=estimate(0.89)), GATES, "production")) == "pass"


@pytest.mark.parametrize("environment", ["development", "production"])
def test_a_broken_class_halts_though_accuracy_is_good(environment: str) -> None:
    results = judge(with_class(recall=0.49), GATES, environment)
    assert by_name(results)["recall_normal"].verdict == "fail"
    assert overall(results) == "fail"


def test_a_broken_class_that_is_not_required_halts_too() -> None:
    rare = ClassCount(label="bone_fracture", recall=0.2, images=30, groups=20)
    assert gate("recall_bone_fracture", classes=[*GOOD.classes, rare]).halts


@pytest.mark.parametrize(
    "change", [{"images": 29}, {"groups": 19}, {"images": 0, "groups": 0, "recall": None}]
)
def test_a_required_class_with_too_few_images_or_groups_halts(change: dict[str, object]) -> None:
    found = by_name(judge(with_class(**change), GATES, "development"))["recall_normal"]
    assert (found.verdict, found.halts) == ("not evaluable", True)
    assert "required" in found.why


FAILING: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "champion": ({"champion": compared(-0.015)}, {"champion": compared(-0.04)}),
    "calibration": (
        {"calibration_error": estimate(0.055, 0.02)},
        {"calibration_error": estimate(0.09, 0.02)},
    ),
    "subgroup_sex": (
        {"subgroups": [replace(GOOD.subgroups[0], estimate=estimate(0.11, 0.05))]},
        {"subgroups": [replace(GOOD.subgroups[0], estimate=estimate(0.2, 0.05))]},
    ),
    "shortcut_lungs_masked": (
        {"shortcuts": [replace(GOOD.shortcuts[0], left=estimate(0.55, 0.1))]},
        {"shortcuts": [replace(GOOD.shortcuts[0], left=estimate(0.8, 0.1))]},
    ),
    "behaviour_rotation": (
        {"behaviour": [Behaviour(name="rotation", estimate=estimate(0.94, 0.03))]},
        {"behaviour": [Behaviour(name="rotation", estimate=estimate(0.8, 0.03))]},
    ),
    "behaviour_inverted": (
        {"behaviour": [Behaviour(name="inverted", estimate=estimate(0.94, 0.03), family="refusal")]},
        {"behaviour": [Behaviour(name="inverted", estimate=estimate(0.8, 0.03), family="refusal")]},
    ),
}
"""Gate → measured so that it fails by a little, and by more than chance explains."""


@pytest.mark.parametrize("name", FAILING)
def test_what_fails_halts_and_in_development_only_beyond_chance_or_not_at_all(name: str) -> None:
    little, much = FAILING[name]
    lenient = name in ("subgroup_sex", "behaviour_rotation")
    for environment, change, halts in (
        ("production", little, True),
        ("staging", much, True),
        ("development", little, False),
        ("development", much, not lenient),
    ):
        found = gate(name, environment, **change)
        assert (found.verdict, found.halts) == ("fail", halts), environment
        assert overall(judge(replace(GOOD, **change), GATES, environment)) == ("fail" if halts else "pass")


def test_coverage_beside_the_promise_fails_and_in_development_halts_where_it_is_too_low() -> None:
    for environment, value, halts in (
        ("development", 0.85, True),
        ("development", 0.99, False),
        ("production", 0.85, True),
        ("production", 0.99, True),
    ):
        found = gate("conformal", environment, coverage=estimate(value, 0.03))
        assert (found.verdict, found.halts) == ("fail", halts)
    assert gate("conformal", promised_coverage=0.8).verdict == "fail"


def test_a_worse_model_fails_by_the_bound_and_not_by_the_difference() -> None:
    assert gate("champion", champion=compared(-0.001, half=0.01)).verdict == "pass"
    unsure = gate("champion", champion=compared(0.01, half=0.06))
    assert (unsure.verdict, unsure.measured) == ("fail", pytest.approx(-0.038))


NOT_EVALUABLE: dict[str, dict[str, Any]] = {
    "champion": {"champion": replace(compared(0.0), difference=estimate(0.0, images=99))},
    "calibration": {"calibration_error": estimate(0.5, images=99)},
    "conformal": {"coverage": estimate(0.5, images=99)},
    "subgroup_sex": {"subgroups": [Gap(attribute="sex", estimate=None, images=49)]},
    "shortcut_lungs_masked": {"shortcuts": [Remaining(name="lungs_masked", images=5, why_not="too few")]},
    "behaviour_rotation": {"behaviour": [Behaviour(name="rotation", estimate=estimate(0.1, images=19))]},
}


@pytest.mark.parametrize("name", NOT_EVALUABLE)
def test_too_few_images_are_no_verdict_and_say_how_many(name: str) -> None:
    found = gate(name, **NOT_EVALUABLE[name])
    assert (found.verdict, found.halts) == ("not evaluable", False)
    assert found.images in (99, 49, 5, 19)
    assert found.why


def test_a_family_can_be_taken_out_by_environment_and_is_judged_all_the_same() -> None:
    gates = Gates(reported={"production": ("shortcut", "recall", "champion")})
    little, _ = FAILING["shortcut_lungs_masked"]
    for environment, halts in (("production", False), ("staging", True)):
        found = gate("shortcut_lungs_masked", environment, gates, **little)
        assert (found.verdict, found.halts) == ("fail", halts)
    assert not by_name(judge(with_class(recall=0.1), gates, "production"))["recall_normal"].halts
    unasked = Comparison(champion="7", why_not="it is damaged")
    assert not gate("champion", "production", gates, champion=unasked).halts


def test_a_result_is_plain_data() -> None:
    assert json.loads(json.dumps(gate("accuracy").as_dict()))["family"] == "accuracy"
