"""Rows of the ledger become observations."""

from datetime import UTC, datetime
from typing import Any

import pytest

from serve.guardrails import RAMP, GuardrailConfig, Step, explainer_guardrails
from serve.rollout import Plan, Rollout, observations, pairs, without_images

NOW = datetime(2026, 11, 26, tzinfo=UTC)
ROLLOUT = Rollout(
    id=1,
    model="m",
    version="2",
    champion="1",
    bundle_key="bundles/2",
    plan=Plan(guardrails=GuardrailConfig(labels=("a", "b"))),
    state="running",
    step=0,
    started_at=NOW,
    started_by="test",
)


def row(assignment: dict[str, Any], pseudonym: str | None = None) -> dict[str, Any]:
    attempt = {"version": "2", "outcome": "ok", "latency_ms": 1.0}
    weights = {"version": "2", "weights": {"1": 0.9, "2": 0.1}}
    return {
        "created_at": NOW,
        "model": "m",
        "patient_pseudonym": pseudonym,
        "assignment": assignment | weights,
        "attempts": [attempt],
        "abstained": False,
        "label": "a",
    }


def test_requests_of_one_study_are_correlated_as_those_of_one_patient_are() -> None:
    found = observations(
        ROLLOUT,
        [
            row({"key": "patient"}, "p"),
            row({"key": "study", "study": "s"}),
            row({"key": "request"}),
            row({"key": "operator"}),
        ],
    )
    assert [one.patient for one in found] == ["p", "s", None]


def test_so_are_mirrored_images_of_one_study() -> None:
    assignment = {"key": "study", "study": "s", "version": "1"}
    shown = {"version": "2", "outcome": "ok", "label": "a"}
    mirrored = {
        "created_at": NOW,
        "model": "m",
        "patient_pseudonym": None,
        "assignment": assignment,
        "served": {**shown, "version": "1"},
        "shown": shown,
    }
    assert [one.patient for one in pairs(ROLLOUT, [mirrored])] == ["s"]
    sent = {**mirrored, "assignment": {**assignment, "key": "operator"}}
    assert pairs(ROLLOUT, [sent]) == []


def test_a_step_that_never_ends_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot last inf minutes"):
        Step(share=0.1, minutes=float("inf"))


def test_a_language_model_climbs_the_same_ramp_without_mirrored_images() -> None:
    kept = without_images(RAMP)
    assert [one.share for one in kept] == [0.01, 0.1, 0.5, 1.0]
    assert [one.non_inferior for one in kept] == [False, True, True, False]
    assert all(one.pairs == 0 for one in kept)
    with pytest.raises(ValueError, match="no mirrored images"):
        without_images((Step(share=0.0, pairs=20),))


def test_a_plan_of_a_language_model_survives_its_way_through_the_database() -> None:
    plan = Plan(guardrails=explainer_guardrails(("a", "b")), steps=without_images(RAMP))
    assert Plan.from_dict(plan.as_dict()) == plan
    assert plan.guardrails.roll_back_p99_ms == 30_000
