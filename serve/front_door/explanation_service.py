"""The explanation service: record → finding → verified sentences → stored text.

The first caller has the text made, later ones read the stored one. If the language model is unavailable, slow or
fails the checks, the template answers: a caller always gets an explanation, and it always names its author. The
outcome of each attempt goes to the ledger (`serve.front_door.explanation_attempt`), by which versions of the
language model are rolled out.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

from psycopg.rows import DictRow

from data.model_card import ModelCard
from serve.dependencies.postgres import DatabaseUnavailableError
from serve.explanation.explanation import Finding, template_explanation
from serve.front_door.attempts import InfrastructureError, ModelError
from serve.front_door.explanation_attempt import ExplanationAttempt
from serve.front_door.prediction_service import PredictionService

logger = logging.getLogger(__name__)

FIRST_SENTENCE_DEADLINE_S = 30.0
"""Time to the first verified sentence, queueing behind other explanations included."""
TOTAL_DEADLINE_S = 60.0


class ExplanationService:
    def __init__(self, service: PredictionService) -> None:
        self.service = service

    async def explain(self, row: DictRow) -> dict[str, Any]:
        """Return the stored explanation of a record, made now if there is none."""
        explanation: dict[str, Any] = row["explanation"]
        async for event in self.stream(row):
            if event["event"] == "done":
                explanation = event["explanation"]
        return explanation

    async def stream(self, row: DictRow) -> AsyncIterator[dict[str, Any]]:
        """Yield `sentence` for each verified sentence and `replace` when the template takes over, both with `text`;
        last `done` with the whole `explanation`, which is stored by then.
        """
        explanation = row["explanation"]
        if explanation is None:
            async for event in self._events(row):
                if event["event"] == "done":
                    explanation = await self.service.records.add_explanation(row["id"], event["explanation"])
                else:
                    yield event
        yield {"event": "done", "explanation": explanation}

    async def _events(self, row: DictRow) -> AsyncIterator[dict[str, Any]]:
        """Yield the model's events; ends with `done` whatever happens to the model."""
        finding = self._finding(row)
        snapshot = self.service.snapshot
        routes = snapshot.routes.get(self.service.config.explainer) if snapshot is not None else None
        if routes is not None:
            attempt = ExplanationAttempt.assign(row, routes)
            source = self.service.models.explain(attempt.target, finding.as_dict())
            ends_at = asyncio.get_running_loop().time() + TOTAL_DEADLINE_S
            deadline_s = FIRST_SENTENCE_DEADLINE_S
            try:
                while True:
                    event = await asyncio.wait_for(anext(source), deadline_s)
                    attempt.record_event(event)
                    if event["event"] == "done":
                        await self._keep(attempt)
                    yield event
                    if event["event"] == "done":
                        return
                    deadline_s = max(0.0, ends_at - asyncio.get_running_loop().time())
            except (TimeoutError, ModelError, InfrastructureError, StopAsyncIteration) as error:
                logger.warning("the language model gave no explanation: %s", type(error).__name__)
                attempt.record_error(error)
                await self._keep(attempt)
        explanation = template_explanation(finding)
        yield {"event": "replace", "text": explanation.text}
        yield {"event": "done", "explanation": explanation.as_dict()}

    async def _keep(self, attempt: ExplanationAttempt) -> None:
        """Store an attempt that has ended; one whose caller disconnects has no outcome and is not stored.

        Not in the journal: evidence for a rollout may be lost while the database is unavailable.
        """
        try:
            await self.service.records.keep_explained(attempt.as_record())
        except DatabaseUnavailableError:
            logger.warning("an explanation is no evidence: the database is away")

    def _finding(self, row: DictRow) -> Finding:
        answer = row["answer"]
        cards: dict[str, ModelCard] = self.service.snapshot.cards if self.service.snapshot is not None else {}
        card = cards.get(row["served_version"])
        return Finding(
            label=answer["label"],
            confidence=answer["confidence"],
            abstained=answer["abstained"],
            prediction_set=tuple(answer["prediction_set"]),
            triage=answer["triage"],
            synthetic=card.synthetic if card is not None else False,
        )
