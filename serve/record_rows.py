"""How records become rows: one statement for as many as wait, safe to repeat, an error for exactly the row it is of.

Rows travel as one JSON text, which PostgreSQL takes apart: a tenth of the cost of binding a value at a time.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal
from uuid import UUID

import psycopg

from serve.line import Line

Kind = Literal["prediction", "failure", "mirrored"]
MAX_GROUP = 64
"""Rows of one statement."""
SHARED = "id, created_at, client_key_id, request_id, patient_pseudonym, assignment, attempts, model"
ANSWERED = f"{SHARED}, body_sha256, served_version, answer, image_key, metadata"
MIRRORED = "id, created_at, model, patient_pseudonym, assignment, served, shown"
INSERTS: dict[Kind, str] = {
    "prediction": f"""
        INSERT INTO predictions ({ANSWERED})
        SELECT {ANSWERED} FROM json_populate_recordset(NULL::predictions, %s::json)
        ON CONFLICT (id) DO NOTHING RETURNING id""",
    "failure": f"""
        INSERT INTO failed_requests ({SHARED})
        SELECT {SHARED} FROM json_populate_recordset(NULL::failed_requests, %s::json)
        ON CONFLICT (id) DO NOTHING RETURNING id""",
    "mirrored": f"""
        INSERT INTO mirrored_requests ({MIRRORED})
        SELECT {MIRRORED} FROM json_populate_recordset(NULL::mirrored_requests, %s::json)
        ON CONFLICT (id) DO NOTHING RETURNING id""",
}
COMPLETE = f"""
    INSERT INTO predictions ({ANSWERED})
    SELECT {ANSWERED} FROM json_populate_recordset(NULL::predictions, %s::json)
    ON CONFLICT (id) DO UPDATE SET answer = jsonb_set(predictions.answer, '{{stored}}', '"yes"')
    WHERE predictions.answer->>'stored' = 'pending' AND predictions.image_key = excluded.image_key
    RETURNING id"""
"""For rows whose image is in the object store by now: one that is there already and says pending says yes."""


def _now() -> str:
    return datetime.now(UTC).isoformat()


@dataclass(frozen=True, kw_only=True)
class Failure:
    """A request that no version answered; the caller may send it again."""

    id: UUID
    """Of this failure alone: a retry that is answered has another."""
    client_key_id: str
    request_id: str
    patient_pseudonym: str | None
    assignment: dict[str, Any]
    """{"key": "patient" | "study" | "request" | "operator", "study"? (its pseudonym), "version", "arm", "weights",
    "revision"}"""
    attempts: list[dict[str, Any]]
    """[{"version", "outcome": "ok" | "model_error" | "invalid_output" | "deadline" | "infrastructure",
    "latency_ms"}]"""
    model: str
    created_at: str = field(default_factory=_now)
    """By this process's clock, ISO 8601."""

    def as_row(self) -> dict[str, Any]:
        """By column, as JSON."""
        return {**vars(self), "id": str(self.id)}


@dataclass(frozen=True, kw_only=True)
class Record(Failure):
    """One answered request; its id is the prediction's."""

    body_sha256: str
    """Of image and fields: tells a client's retry from another request under the same Idempotency-Key."""
    served_version: str
    answer: dict[str, Any]
    """The body of the 201."""
    image_key: str
    """De-identified PNG, in bucket `predictions`."""
    metadata: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Mirrored:
    """An image that a further version was shown, without answering."""

    id: UUID
    model: str
    patient_pseudonym: str | None
    assignment: dict[str, Any]
    """Of the request, as in a record."""
    served: dict[str, Any]
    """The attempt that answered: {"version", "outcome", "latency_ms", "label"}."""
    shown: dict[str, Any]
    """The attempt that nobody waited for; its label is None where it failed."""
    created_at: str = field(default_factory=_now)

    def as_row(self) -> dict[str, Any]:
        """By column, as JSON."""
        return {**vars(self), "id": str(self.id)}


async def write(line: Line, statement: str, rows: Sequence[dict[str, Any]]) -> list[bool | Exception]:
    """Carry out one of the statements of this module.

    Returns:
        for each row whether it was written (False: its id is there already), or why PostgreSQL refuses this row.
    Raises:
        AwayError: PostgreSQL does not answer; some or all may have been written all the same.
    """
    distinct = {row["id"]: row for row in reversed(rows)}
    in_order = [distinct[one] for one in sorted(distinct)]  # two writers lock equal ids in one order
    try:
        written = await line.ask(statement, (json.dumps(in_order, separators=(",", ":")),))
    except (psycopg.DataError, psycopg.IntegrityError) as error:
        if len(rows) == 1:
            return [error]
        return [one for row in rows for one in await write(line, statement, [row])]
    if len(written) == len(rows):
        return [True] * len(rows)
    ids = {str(one["id"]) for one in written}
    return [row["id"] in ids and distinct[row["id"]] is row for row in rows]
