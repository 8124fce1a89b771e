"""How an attempt at an explanation ends, and what it is called."""

import uuid
from typing import Any

import pytest

from serve.front_door.attempts import InfrastructureError, ModelError
from serve.front_door.explanation_attempt import ExplanationAttempt
from serve.routing.routes import Routes, Target, add, set_weights

ROUTES = set_weights(
    add(Routes(model="m", targets=(Target(version="1", role="champion", bundle_key="b"),)), "2", "c"),
    {"2": 0.5},
)


def asked(patient: str | None = None, study: str | None = None) -> ExplanationAttempt:
    assignment = {"key": "request", **({"study": study} if study else {})}
    row = {"id": uuid.uuid4(), "patient_pseudonym": patient, "assignment": assignment}
    return ExplanationAttempt.assign(row, ROUTES)


def attempt(one: ExplanationAttempt) -> dict[str, Any]:
    (found,) = one.as_record().attempts
    return found


@pytest.mark.parametrize(
    ("error", "outcome", "named"),
    [
        (TimeoutError(), "deadline", False),
        (ModelError("x"), "model_error", False),
        (StopAsyncIteration(), "model_error", False),
        (InfrastructureError("x"), "infrastructure", True),
        (InfrastructureError("x", incident="actor-1"), "infrastructure", True),
    ],
)
def test_an_error_in_place_of_the_end_is_told_by_its_kind(
    error: Exception, outcome: str, named: bool
) -> None:
    one = asked()
    one.record_error(error)
    assert attempt(one)["outcome"] == outcome
    assert ("incident" in attempt(one)) == named


def test_the_first_sentence_is_what_a_reader_waits_for_and_the_end_decides() -> None:
    for fallback, outcome in ((False, "ok"), (True, "invalid_output")):
        one = asked()
        one.began_s -= 2
        one.record_event({"event": "sentence", "text": "a"})
        first_ms = one.latency_ms
        one.began_s -= 5
        one.record_event({"event": "done", "explanation": {"fallback": fallback}})
        assert attempt(one)["outcome"] == outcome
        assert first_ms is not None
        assert attempt(one)["latency_ms"] == pytest.approx(first_ms, abs=0.01)
        assert 2000 <= first_ms < 5000


def test_all_predictions_of_a_patient_and_of_a_study_are_explained_by_one_version() -> None:
    assert len({asked("p").target.version for _ in range(20)}) == 1
    assert len({asked(study="s").target.version for _ in range(20)}) == 1
    assert len({asked().target.version for _ in range(40)}) == 2
    assert asked(study="s").assignment["study"] == "s"
    assert [asked("p", "s").assignment["key"], asked().assignment["key"]] == ["patient", "request"]
