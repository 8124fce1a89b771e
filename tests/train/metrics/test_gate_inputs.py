"""What the gates are given."""

import pytest

from tests.train.evaluation.measured import GATES, GOOD, by_name, gate
from train.evaluation.gates import judge, overall
from train.metrics.gate_inputs import ClassCount, Comparison, GateInputs


def test_a_class_that_is_not_required_may_have_too_few() -> None:
    rare = ClassCount(label="fungal_pneumonia", recall=0.0, images=3, groups=2)
    found = gate("recall_fungal_pneumonia", classes=[*GOOD.classes, rare])
    assert (found.verdict, found.halts) == ("not evaluable", False)


def test_an_empty_test_split_halts() -> None:
    results = judge(GateInputs(accuracy=None, classes=[]), GATES, "development")
    assert by_name(results)["accuracy"].verdict == "not evaluable"
    assert overall(results) == "fail"


def test_without_another_champion_there_is_nothing_to_compare() -> None:
    found = gate("champion", champion=Comparison(champion=None))
    assert (found.verdict, found.halts) == ("not evaluable", False)


@pytest.mark.parametrize("environment", ["development", "production"])
def test_a_champion_that_cannot_be_asked_halts(environment: str) -> None:
    found = gate("champion", environment, champion=Comparison(champion="7", why_not="it is damaged"))
    assert (found.verdict, found.halts, found.why) == ("not evaluable", True, "it is damaged")
