"""Rows of the ledger become observations."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from serve.canary.guardrails import (
    DEFAULT_BUDGET,
    DEFAULT_MARGINS,
    RAMP,
    GuardrailConfig,
    Step,
    explainer_guardrails,
)
from serve.control.plan import Plan, PlanFormatError, Rollout, observations, pairs, without_images

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


def stored_plan(guardrails: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A plan as it is stored, with these fields among its guardrails' first ones."""
    return {
        "guardrails": {
            "labels": ["a", "b"],
            "budget": {
                "errors": 0.024,
                "mirrored_errors": 0.002,
                "frozen_errors": 0.002,
                "invalid_outputs": 0.004,
                "latency": 0.004,
                "abstentions": 0.004,
                "drift": 0.004,
                "disagreement": 0.003,
                "feedback": 0.001,
                "deaths": 0.001,
                "absolute_errors": 0.0005,
                "absolute_latency": 0.0005,
            },
            "margins": {
                "errors": 0.01,
                "mirrored_errors": 0.01,
                "invalid_outputs": 0.01,
                "latency": 0.05,
                "abstentions": 0.05,
            },
            "promote_alpha": 0.05,
            "freeze_alpha": 0.01,
            "error_bound": 0.01,
            "promote_p99_ms": 300.0,
            "roll_back_p99_ms": 500.0,
            "window_minutes": 5,
            "window_requests": 100,
            "disagreement_bound": 0.1,
            "slow_ms": None,
            "latency_tolerance": 0.05,
            "spell_s": 2.0,
            "label_shares": None,
            "drift_tolerance": 1.5,
            **guardrails,
        },
        "steps": [{"share": 0.1, "minutes": 5.0, "requests": 100, "pairs": 0, "non_inferior": True}],
        "mirror": 1.0,
        "ready_s": 600.0,
        **more,
    }


EXPECTED = Plan(
    guardrails=GuardrailConfig(labels=("a", "b"), block_s=2.0), steps=(Step(share=0.1, requests=100),)
)


def test_plans_of_every_format_are_read() -> None:
    first, now = stored_plan({}), stored_plan({"gross": 10.0})
    with_own_budget = stored_plan({"gross": 10.0})
    with_own_budget["guardrails"]["budget"] |= {"frozen_errors": 0.0015, "gross_errors": 0.0005}
    for stored in (first, now, {**now, "format": 1}, with_own_budget):
        assert Plan.from_dict(stored) == EXPECTED


def test_a_plan_is_stored_as_versions_before_formats_read_it() -> None:
    """They serve, and lead rollouts, until a newer version is promoted; an unknown key would end their controller."""
    assert json.loads(json.dumps(EXPECTED.as_dict())) == stored_plan({"gross": 10.0})


def test_a_plan_of_a_later_format_is_refused_in_one_line() -> None:
    with pytest.raises(PlanFormatError, match="has format 2, and this version reads 1"):
        Plan.from_dict(stored_plan({}, format=2))


def test_a_guardrail_that_is_newer_than_a_plan_has_next_to_no_budget_there() -> None:
    stored = stored_plan({})
    del stored["guardrails"]["budget"]["feedback"], stored["guardrails"]["margins"]["latency"]
    guardrails = Plan.from_dict(stored).guardrails
    assert 0 < guardrails.budget["feedback"] < 1e-9
    assert guardrails.margins == DEFAULT_MARGINS
    assert set(guardrails.budget) == set(DEFAULT_BUDGET)
