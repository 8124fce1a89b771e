"""Rows of the ledger become observations."""

from datetime import UTC, datetime
from typing import Any

from serve.guardrails import GuardrailConfig
from serve.rollout import Plan, Rollout, observations, pairs

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
