"""A version of the language model is rolled out by the controller of all models, from what its explanations came to."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from cluster.objects import ObjectStore
from serve.canary.guardrails import Step, explainer_guardrails
from serve.control import rollout_store
from serve.control.plan import Rollout
from serve.explanation.explanation import Finding, explain, template_text
from serve.front_door.attempts import InfrastructureError, ModelError
from serve.front_door.explanation_service import ExplanationService
from serve.front_door.prediction_service import PredictionConfig, PredictionService
from serve.front_door.serving_snapshot import ServingSnapshot
from serve.ledger.writer import Records, RecordsConfig
from serve.routing import desired_state
from serve.routing.routes import Target
from tests.services.test_rollouts import LABELS, Stage, stage

__all__ = ["stage"]  # a fixture

STEPS = (Step(share=0.5, minutes=0, requests=400, non_inferior=False),)
FORBIDDEN = "You have lung cancer. Take two tablets of antibiotics each day."
Words = Callable[[Finding], Iterator[str]]


def sound(finding: Finding) -> Iterator[str]:
    yield template_text(finding)


def refused(finding: Finding) -> Iterator[str]:
    yield FORBIDDEN


def raising(finding: Finding) -> Iterator[str]:
    raise ModelError("RuntimeError at a replica")
    yield ""


def dead(finding: Finding) -> Iterator[str]:
    raise InfrastructureError("ActorDiedError at a replica", incident="actor-7")
    yield ""


class Writers:
    """Language models in this process, whose words the real checker reads."""

    def __init__(self, words: dict[str, Words]) -> None:
        self.words = words

    async def explain(self, target: Target, finding: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
        told = Finding.from_dict(finding)
        for event in explain(told, self.words[target.version](told), model=f"llm-{target.version}"):
            yield event.as_dict()


def answered(patient: str | None = None, study: str | None = None) -> Any:
    """The row of a prediction, as the front door reads it."""
    answer = {
        "label": "tuberculosis",
        "confidence": 0.9,
        "abstained": False,
        "prediction_set": ["tuberculosis"],
        "triage": "urgent",
    }
    return {
        "id": uuid.uuid4(),
        "served_version": "1",
        "answer": answer,
        "explanation": None,
        "patient_pseudonym": patient,
        "assignment": {"key": "request"} | ({"study": study} if study else {}),
    }


def ask(stage: Stage, words: dict[str, Words], rows: list[Any]) -> list[dict[str, Any]]:
    """What the callers get who ask for these explanations, through the front door's own code."""

    async def run() -> list[dict[str, Any]]:
        store = ObjectStore(stage.settings)
        records = Records(stage.settings.database_url, store, None, RecordsConfig(deadline_s=30.0))
        nobody: Any = None
        writers: Any = Writers(words)
        service = PredictionService(
            models=writers,
            decoder=nobody,
            store=store,
            records=records,
            encryption_key=b"e" * 32,
            pseudonym_key=b"p" * 32,
            config=PredictionConfig(explainer=stage.model),
        )
        service.snapshot = ServingSnapshot(routes=desired_state.read(stage.connection))
        await records.open()
        explanations = ExplanationService(service)
        told = list(await asyncio.gather(*(explanations.explain(row) for row in rows)))
        await records.close()
        return told

    return asyncio.run(run())


def begun(stage: Stage) -> Rollout:
    one = stage.start(steps=STEPS, guardrails=explainer_guardrails(LABELS))
    stage.tick()
    return one


def test_a_language_model_whose_texts_the_checker_refuses_is_rolled_back_and_readers_get_the_template(
    stage: Stage,
) -> None:
    one = begun(stage)
    for _ in range(6):
        told = ask(stage, {"1": sound, "2": refused}, [answered(uuid.uuid4().hex) for _ in range(20)])
        assert all(FORBIDDEN not in one["text"] for one in told)
        stage.tick()
        if stage.now(one).ended_at is not None:
            break
    assert stage.now(one).state == "rolled_back"
    assert "invalid_outputs" in rollout_store.events(stage.connection, one.id)[-1]["why"]
    assert stage.routes.weights == {"1": 1.0, "2": 0.0}


def test_a_language_model_as_good_as_its_champion_is_promoted(stage: Stage) -> None:
    one = stage.start(
        steps=(Step(share=0.5, minutes=0, requests=10, non_inferior=False),),
        guardrails=explainer_guardrails(LABELS),
    )
    stage.tick()
    ask(stage, {"1": sound, "2": sound}, [answered(uuid.uuid4().hex) for _ in range(60)])
    stage.tick()
    assert stage.now(one).state == "promoted"


@pytest.mark.parametrize(
    ("words", "outcome", "fallback"),
    [
        (sound, "ok", False),
        (refused, "invalid_output", True),
        (raising, "model_error", True),
        (dead, "infrastructure", True),
    ],
)
def test_each_end_of_an_explanation_is_in_the_ledger_with_its_draw(
    stage: Stage, words: Words, outcome: str, fallback: bool
) -> None:
    rows = [answered("p"), answered(study="s"), answered()]
    told = ask(stage, {"1": words}, rows)
    assert [one["fallback"] for one in told] == [fallback] * 3
    kept = stage.connection.execute(
        "SELECT * FROM explained_requests WHERE model = %s", [stage.model]
    ).fetchall()
    by_id = {one["prediction_id"]: one for one in kept}
    found = [by_id[row["id"]] for row in rows]
    assert [one["assignment"]["key"] for one in found] == ["patient", "study", "request"]
    assert [one["attempts"][0]["outcome"] for one in found] == [outcome] * 3
    assert [one["attempts"][0].get("incident") for one in found] == [
        "actor-7" if outcome == "infrastructure" else None
    ] * 3
    assert all(one["attempts"][0]["latency_ms"] >= 0 for one in found)
