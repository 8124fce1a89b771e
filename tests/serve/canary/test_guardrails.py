"""The table of guardrails, and configurations that make no sense."""

from typing import Any

import pytest

from serve.canary.guardrails import (
    BOUNDS,
    BY_NAME,
    FAILURES,
    FAULTS,
    GUARDRAILS,
    GuardrailConfig,
)
from serve.canary.observations import Feedback, Pairs, Requests

CONFIG = GuardrailConfig(labels=("a", "b"))


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"labels": ("a", "a")}, "two or more different"),
        ({"promote_p99_ms": 600.0}, "at most roll_back"),
        ({"block_s": 7.0}, "divide a minute"),
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


def test_each_row_of_the_table_has_a_name_of_its_own_and_a_column_that_is_there() -> None:
    assert len(BY_NAME) == len(GUARDRAILS)
    columns = {
        "requests": {*Requests.__dataclass_fields__, "slow_N", "failed_N"},
        "incidents": set(Requests.__dataclass_fields__),
        "pairs": {name.removeprefix("canary_") for name in Pairs.__dataclass_fields__},
        "feedback": set(Feedback.__dataclass_fields__),
    }
    for guardrail in GUARDRAILS:
        assert guardrail.column in columns[guardrail.source], guardrail.name
        assert guardrail.bound is None or hasattr(CONFIG, guardrail.bound), guardrail.name
        assert guardrail.rolls_back == (guardrail.name not in ("promotion_latency", "input_drift"))


def test_what_is_asked_of_a_promotion_follows_from_the_table() -> None:
    assert FAULTS[:4] == ("errors", "invalid_outputs", "abstentions", "latency")
    assert FAILURES == ("errors", "invalid_outputs")
    assert BOUNDS == ("errors", "over_roll_back", "over_promote")
