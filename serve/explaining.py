"""Explanations over HTTP: record → finding → verified sentences → stored text.

The first caller makes the text, everyone later reads the stored one. When the language model is away, slow or
not to be believed, the template answers: a caller always gets an explanation, and it always says who wrote it. What
came of each attempt is the ledger's (`serve.explained`), by which versions of the language model are rolled out.
"""

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from typing import Any

from psycopg.rows import DictRow

from data.model_card import ModelCard
from serve.attempts import InfrastructureError, ModelError
from serve.desk import Desk
from serve.explained import ExplanationAttempt
from serve.explanation import Explanation, Finding, template_explanation
from serve.line import DatabaseUnavailableError

logger = logging.getLogger(__name__)

FIRST_SENTENCE_DEADLINE_S = 30.0
"""Time to the first verified sentence, queueing behind other explanations included."""
TOTAL_DEADLINE_S = 60.0
PUBLIC = ("text", "model", "grounded", "fallback", "disclaimer")


def public(explanation: dict[str, Any]) -> dict[str, Any]:
    """What a caller sees of a stored explanation."""
    return {name: explanation[name] for name in PUBLIC}


class Explaining:
    def __init__(self, desk: Desk) -> None:
        self.desk = desk

    async def explain(self, row: DictRow) -> dict[str, Any]:
        """The stored explanation of a record, made now when there is none."""
        if row["explanation"] is not None:
            stored: dict[str, Any] = row["explanation"]
            return stored
        made = template_explanation(self._finding(row)).as_dict()
        async for event in self._events(row):
            if event["event"] == "done":
                made = event["explanation"]
        return await self.desk.records.add_explanation(row["id"], made)

    async def stream(self, row: DictRow) -> AsyncIterator[str]:
        """Server-sent events: `sentence` for each verified sentence, `replace` when the template takes over,
        `done` with the whole explanation."""
        made = row["explanation"]
        if made is None:
            async for event in self._events(row):
                if event["event"] == "done":
                    made = await self.desk.records.add_explanation(row["id"], event["explanation"])
                else:
                    yield _sse(event["event"], {"text": event["text"]})
        yield _sse("done", public(made))

    async def _events(self, row: DictRow) -> AsyncIterator[dict[str, Any]]:
        """The model's events; ends with `done` whatever happens to the model."""
        finding = self._finding(row)
        snapshot = self.desk.snapshot
        routes = snapshot.routes.get(self.desk.config.explainer) if snapshot is not None else None
        if routes is not None:
            asked = ExplanationAttempt.about(row, routes)
            source = self.desk.models.explain(asked.target, finding.as_dict())
            ends_at = asyncio.get_running_loop().time() + TOTAL_DEADLINE_S
            deadline_s = FIRST_SENTENCE_DEADLINE_S
            try:
                while True:
                    event = await asyncio.wait_for(anext(source), deadline_s)
                    asked.heard(event)
                    if event["event"] == "done":
                        await self._keep(asked)
                    yield event
                    if event["event"] == "done":
                        return
                    deadline_s = max(0.0, ends_at - asyncio.get_running_loop().time())
            except (TimeoutError, ModelError, InfrastructureError, StopAsyncIteration) as error:
                logger.warning("the language model gave no explanation: %s", type(error).__name__)
                asked.failed(error)
                await self._keep(asked)
        explanation: Explanation = template_explanation(finding)
        yield {"event": "replace", "text": explanation.text}
        yield {"event": "done", "explanation": explanation.as_dict()}

    async def _keep(self, asked: ExplanationAttempt) -> None:
        """A caller who goes away in the middle leaves nothing: nobody knows how it would have ended."""
        try:
            await self.desk.records.keep_explained(asked.as_record())
        except DatabaseUnavailableError:
            logger.warning("an explanation is no evidence: the database is away")

    def _finding(self, row: DictRow) -> Finding:
        told = row["answer"]
        cards: dict[str, ModelCard] = self.desk.snapshot.cards if self.desk.snapshot is not None else {}
        card = cards.get(row["served_version"])
        return Finding(
            label=told["label"],
            confidence=told["confidence"],
            abstained=told["abstained"],
            prediction_set=tuple(told["prediction_set"]),
            triage=told["triage"],
            synthetic=card.synthetic if card is not None else False,
        )


def _sse(event: str, data: dict[str, Any]) -> str:
    return f"event: {event}\ndata: {json.dumps(data)}\n\n"
