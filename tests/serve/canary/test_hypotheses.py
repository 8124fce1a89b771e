"""The hypotheses of a rollout, their names and their shares of the budget."""

import json
from pathlib import Path

import pytest

from serve.canary.guardrails import (
    BY_NAME,
    DEFAULT_BUDGET,
    DEFAULT_MARGINS,
    GuardrailConfig,
    Step,
)
from serve.canary.hypotheses import alpha_of, hypothesis_names, needed
from serve.control.plan import Plan

STORED = Path(__file__).with_name("stored")


def test_no_budget_is_larger_than_one_false_rollback_in_twenty() -> None:
    assert sum(DEFAULT_BUDGET.values()) == pytest.approx(0.05)
    for name, wrong, says in (
        ("budget", {"errors": 0.03}, r"more than 0\.05"),
        ("budget", {"drift": 0.0}, "budget of drift"),
        ("budget", {"luck": 0.001}, "a budget for each of errors"),
        ("margins", {"latency": 0.0}, "margin of latency"),
    ):
        default = DEFAULT_BUDGET if name == "budget" else DEFAULT_MARGINS
        with pytest.raises(ValueError, match=says):
            GuardrailConfig(labels=("a", "b"), **{name: default | wrong})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="nothing negative"):
        Step(share=0.1, minutes=-1)


def test_hypotheses_keep_the_names_and_the_order_in_which_they_are_stored() -> None:
    stored = json.loads((STORED / "before_formats.json").read_text())
    config = Plan.from_dict(stored["plan"]).guardrails
    rows = list(stored["evidence"]["wealth"]["rows"])
    assert [name for name in hypothesis_names(config) if name in rows] == rows
    assert needed(BY_NAME["errors"], config) == 1 / 0.024
    assert needed(BY_NAME["frozen_errors"], config) == needed(BY_NAME["gross_errors"], config) == 1000.0
    assert alpha_of(BY_NAME["promotion_latency"], config) == config.freeze_alpha
