from dataclasses import replace

import pytest

from train.gates import ClassCount, GateError, GateResult, Gates, Measured, judge, overall

GATES = Gates()
GOOD = Measured(
    accuracy=0.92,
    low=0.90,
    high=0.94,
    images=500,
    groups=300,
    classes=[ClassCount(label=name, recall=0.8, images=60, groups=40) for name in GATES.required_classes],
)


def by_name(results: list[GateResult]) -> dict[str, GateResult]:
    return {one.name: one for one in results}


def with_class(**change: object) -> Measured:
    return replace(GOOD, classes=[replace(GOOD.classes[0], **change), *GOOD.classes[1:]])


def test_a_good_model_passes_every_gate() -> None:
    results = judge(GOOD, GATES, "production")
    assert {one.verdict for one in results} == {"pass"}
    assert overall(results) == "pass"


def test_accuracy_below_the_block_halts() -> None:
    results = judge(replace(GOOD, accuracy=0.49), GATES, "development")
    gate = by_name(results)["accuracy"]
    assert (gate.verdict, gate.halts, gate.threshold, gate.images) == ("fail", True, 0.50, 500)
    assert "0.490" in gate.why
    assert "0.900 to 0.940" in gate.why
    assert overall(results) == "fail"


def test_accuracy_on_the_block_passes() -> None:
    assert overall(judge(replace(GOOD, accuracy=0.50), GATES, "development")) == "pass"


@pytest.mark.parametrize("environment", ["staging", "canary", "production"])
def test_the_block_is_higher_outside_development(environment: str) -> None:
    fair = replace(GOOD, accuracy=0.65)
    assert overall(judge(fair, GATES, "development")) == "pass"
    assert by_name(judge(fair, GATES, environment))["accuracy"].verdict == "fail"


def test_missing_the_target_is_said_and_halts_nothing() -> None:
    results = judge(replace(GOOD, accuracy=0.89), GATES, "production")
    gate = by_name(results)["target"]
    assert (gate.verdict, gate.halts) == ("fail", False)
    assert overall(results) == "pass"


def test_a_broken_class_halts_though_accuracy_is_good() -> None:
    results = judge(with_class(recall=0.49), GATES, "development")
    assert by_name(results)["recall_normal"].verdict == "fail"
    assert overall(results) == "fail"


def test_a_broken_class_that_is_not_required_halts_too() -> None:
    rare = ClassCount(label="bone_fracture", recall=0.2, images=30, groups=20)
    results = judge(replace(GOOD, classes=[*GOOD.classes, rare]), GATES, "development")
    assert by_name(results)["recall_bone_fracture"].verdict == "fail"
    assert overall(results) == "fail"


@pytest.mark.parametrize(
    "change", [{"images": 29}, {"groups": 19}, {"images": 0, "groups": 0, "recall": None}]
)
def test_a_required_class_with_too_few_images_or_groups_halts(change: dict[str, object]) -> None:
    results = judge(with_class(**change), GATES, "development")
    gate = by_name(results)["recall_normal"]
    assert (gate.verdict, gate.halts) == ("not evaluable", True)
    assert "required" in gate.why
    assert overall(results) == "fail"


def test_a_class_that_is_not_required_may_have_too_few() -> None:
    rare = ClassCount(label="fungal_pneumonia", recall=0.0, images=3, groups=2)
    results = judge(replace(GOOD, classes=[*GOOD.classes, rare]), GATES, "development")
    gate = by_name(results)["recall_fungal_pneumonia"]
    assert (gate.verdict, gate.halts) == ("not evaluable", False)
    assert overall(results) == "pass"


def test_an_empty_test_split_halts() -> None:
    nothing = Measured(accuracy=None, low=None, high=None, images=0, groups=0, classes=[])
    results = judge(nothing, GATES, "development")
    assert by_name(results)["accuracy"].verdict == "not evaluable"
    assert overall(results) == "fail"


def test_an_environment_without_a_block_is_refused() -> None:
    with pytest.raises(GateError, match="'moon'"):
        judge(GOOD, GATES, "moon")


def test_an_impossible_number_is_refused() -> None:
    with pytest.raises(GateError, match=r"block\.development"):
        Gates(block={"development": 50})
