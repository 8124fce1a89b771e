"""The settings of the gates."""

from dataclasses import asdict
from typing import Any

import pytest

from tests.train.evaluation.measured import GATES, GOOD
from train.evaluation.gates import GateError, Gates, judge


def test_an_environment_without_a_block_is_refused() -> None:
    with pytest.raises(GateError, match="'moon'"):
        judge(GOOD, GATES, "moon")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"block": {"development": 50}}, r"block\.development"),
        ({"behaviour": {**GATES.behaviour, "rotation": 95}}, r"behaviour\.rotation"),
        ({"behaviour": {"rotation": 0.9}}, "lacks a threshold for .*photograph"),
        ({"reported": {"production": ("shortcuts",)}}, "names shortcuts; there are"),
        ({"calibration_error": 5}, "calibration_error"),
    ],
)
def test_an_impossible_setting_is_refused(change: dict[str, Any], said: str) -> None:
    with pytest.raises(GateError, match=said):
        Gates(**change)


def test_the_numbers_are_those_that_were_decided() -> None:
    numbers = asdict(GATES)
    assert numbers["block"] == {"development": 0.5, "staging": 0.7, "canary": 0.7, "production": 0.7}
    decided = {
        "target": 0.9,
        "recall_floor": 0.5,
        "floor_images": 30,
        "floor_groups": 20,
        "champion_margin": 0.02,
        "calibration_error": 0.05,
        "subgroup_gap": 0.1,
        "subgroup_images": 50,
        "shortcut_left": 0.5,
    }
    assert {name: numbers[name] for name in decided} == decided
    strict = ("rotation", "brightness", "border_crop", "inverted", "blank", "photograph", "lateral")
    assert {numbers["behaviour"][name] for name in strict} == {0.95}
