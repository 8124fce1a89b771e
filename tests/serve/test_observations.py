"""What cannot be judged is refused in one line."""

from typing import Any

import pytest

from serve.guardrails import Budget, GuardrailConfig, Margins, Step
from serve.observations import Observation, Opinion, Pair, Requests

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
    Pair(at=0.0, agree=True)
    for wrong in ({}, {"agree": True, "canary_failed": True}):
        with pytest.raises(ValueError, match="agrees or not"):
            Pair(at=0.0, **wrong)


def test_an_opinion_is_about_one_arm() -> None:
    with pytest.raises(ValueError, match="neither canary nor champion"):
        Opinion(at=0.0, arm="both", share=0.1, agrees=True)  # type: ignore[arg-type]


def test_an_unknown_label_is_refused_by_its_name() -> None:
    with pytest.raises(ValueError, match="'measles' is none of a, b"):
        Requests.of([Observation(**PLAIN, label="measles")], ("a", "b"))


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"labels": ("a", "a")}, "two or more different"),
        ({"promote_p99_ms": 600.0}, "at most roll_back"),
        ({"spell_s": 7.0}, "divide a minute"),
        ({"error_bound": 0.0}, "error_bound"),
        ({"window_minutes": 1}, "two minutes"),
        ({"latency_tolerance": 1.0}, "latency_tolerance"),
        ({"label_shares": {"a": 0.5}}, "add up to 1"),
        ({"label_shares": {"c": 1.0}}, "none of labels"),
    ],
)
def test_a_configuration_that_makes_no_sense_is_refused(wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        GuardrailConfig(**{"labels": ("a", "b"), **wrong})


def test_no_budget_is_larger_than_one_false_rollback_in_twenty() -> None:
    assert Budget().total == pytest.approx(0.05)
    with pytest.raises(ValueError, match=r"more than 0\.05"):
        Budget(errors=0.03)
    with pytest.raises(ValueError, match="budget of drift"):
        Budget(drift=0.0)
    with pytest.raises(ValueError, match="margin of latency"):
        Margins(latency=0.0)
    with pytest.raises(ValueError, match="nothing negative"):
        Step(share=0.1, minutes=-1)
