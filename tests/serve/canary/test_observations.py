"""What cannot be judged is refused in one line."""

from typing import Any

import pytest

from serve.canary.observations import MirroredPair, Observation, PhysicianFeedback, Requests

PLAIN: dict[str, Any] = {"at": 1.0, "arm": "canary", "share": 0.1, "outcome": "ok"}


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"at": float("nan")}, "time"),
        ({"arm": "shadow"}, "neither canary nor champion"),
        ({"share": 1.5}, "share is 1.5"),
        ({"outcome": "fine"}, "none of ok, model_error"),
        ({"outcome": "infrastructure"}, "names its incident"),
        ({"incident": "pod-7"}, "names its incident"),
        ({"latency_ms": -1.0}, "latency is -1"),
    ],
)
def test_an_observation_that_makes_no_sense_is_refused(wrong: dict[str, Any], says: str) -> None:
    Observation(**PLAIN)
    with pytest.raises(ValueError, match=says):
        Observation(**{**PLAIN, **wrong})


def test_a_pair_agrees_or_not_exactly_when_both_answered() -> None:
    MirroredPair(at=0.0, agree=True)
    for wrong in ({}, {"agree": True, "canary_failed": True}):
        with pytest.raises(ValueError, match="agrees or not"):
            MirroredPair(at=0.0, **wrong)


def test_an_opinion_is_about_one_arm() -> None:
    with pytest.raises(ValueError, match="neither canary nor champion"):
        PhysicianFeedback(at=0.0, arm="both", share=0.1, agrees=True)  # type: ignore[arg-type]


def test_an_unknown_label_is_refused_by_its_name() -> None:
    with pytest.raises(ValueError, match="'measles' is none of a, b"):
        Requests.of([Observation(**PLAIN, label="measles")], ("a", "b"))
