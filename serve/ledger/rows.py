"""Rows of the attempt ledger: one statement for a group of rows, safe to repeat, with an error for exactly the bad
row.

Rows travel as one JSON text that PostgreSQL takes apart, at a tenth of the cost of binding each value.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal
from uuid import UUID

import psycopg

from serve.dependencies.postgres import PostgresConnection

Kind = Literal["prediction", "failure", "mirrored", "explained"]
MAX_GROUP = 64
"""Largest number of rows in one statement."""
SHARED = "id, created_at, client_key_id, request_id, patient_pseudonym, assignment, attempts, model"
ANSWERED = f"{SHARED}, body_sha256, served_version, answer, image_key, metadata"
EXPLAINED = "id, created_at, prediction_id, model, patient_pseudonym, assignment, attempts"
MIRRORED = "id, created_at, model, patient_pseudonym, assignment, served, shown"


def _insert(table: str, columns: str, on_conflict: str = "DO NOTHING") -> str:
    return f"""
        INSERT INTO {table} ({columns})
        SELECT {columns} FROM json_populate_recordset(NULL::{table}, %s::json)
        ON CONFLICT (id) {on_conflict} RETURNING id"""


INSERTS: dict[Kind, str] = {
    "prediction": _insert("predictions", ANSWERED),
    "failure": _insert("failed_requests", SHARED),
    "mirrored": _insert("mirrored_requests", MIRRORED),
    "explained": _insert("explained_requests", EXPLAINED),
}
COMPLETE = _insert(
    "predictions",
    ANSWERED,
    """DO UPDATE SET answer = jsonb_set(predictions.answer, '{stored}', '"yes"')
        WHERE predictions.answer->>'stored' = 'pending' AND predictions.image_key = excluded.image_key""",
)
"""For rows whose image is now in the object store: an existing row that says pending says yes."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """A row of one of the ledger's tables; the fields are its columns."""

    id: UUID
    created_at: str = field(default_factory=lambda: datetime.now(UTC).isoformat())
    """By this process's clock, ISO 8601."""

    def as_row(self) -> dict[str, Any]:
        """Return the columns as JSON values."""
        return {name: str(value) if isinstance(value, UUID) else value for name, value in vars(self).items()}


@dataclass(frozen=True, kw_only=True)
class Failure(Row):
    """A request that no version answered; an answered retry of it has another id."""

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


@dataclass(frozen=True, kw_only=True)
class Record(Failure):
    """One answered request; its id is the prediction's."""

    body_sha256: str
    """Of image and fields: tells a client's retry from another request under the same Idempotency-Key."""
    served_version: str
    answer: Mapping[str, Any]
    """The body of the 201, a `serve.front_door.prediction.Prediction`."""
    image_key: str
    """De-identified PNG, in bucket `predictions`."""
    metadata: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Mirrored(Row):
    """An image that was mirrored to a further version."""

    model: str
    patient_pseudonym: str | None
    assignment: dict[str, Any]
    """Of the request, as in a record."""
    served: dict[str, Any]
    """The attempt that answered: {"version", "outcome", "latency_ms", "label"}."""
    shown: dict[str, Any]
    """The mirrored attempt; its label is None if it failed."""


@dataclass(frozen=True, kw_only=True)
class Explained(Row):
    """The outcome of asking a language model to explain an answer."""

    prediction_id: UUID
    model: str
    patient_pseudonym: str | None
    assignment: dict[str, Any]
    """As in a record, of the language model's own draw."""
    attempts: list[dict[str, Any]]
    """One, as in a record; its latency is the time to the first sentence, or to giving up."""


async def write(
    connection: PostgresConnection, statement: str, rows: Sequence[dict[str, Any]]
) -> list[bool | Exception]:
    """Run one of the statements of this module.

    Returns:
        for each row True if it was written, False if its id exists, or the error with which PostgreSQL refuses it.
    Raises:
        DatabaseUnavailableError: PostgreSQL does not answer; some or all may have been written all the same.
    """
    distinct = {row["id"]: row for row in reversed(rows)}
    in_order = [distinct[row_id] for row_id in sorted(distinct)]  # two writers lock equal ids in one order
    try:
        written = await connection.execute(statement, (json.dumps(in_order, separators=(",", ":")),))
    except (psycopg.DataError, psycopg.IntegrityError) as error:
        if len(rows) == 1:
            return [error]
        return [(await write(connection, statement, [row]))[0] for row in rows]
    if len(written) == len(rows):
        return [True] * len(rows)
    ids = {str(row["id"]) for row in written}
    return [row["id"] in ids and distinct[row["id"]] is row for row in rows]
