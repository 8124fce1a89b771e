"""The attempt ledger: one record a request in PostgreSQL, written before the caller is answered.

A record holds the assignment, each attempt and the answer; audit, idempotency and the canary's statistics
derive from it. Nothing in it identifies a patient.
"""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from psycopg import AsyncConnection
from psycopg.rows import DictRow
from psycopg.types.json import Jsonb
from psycopg_pool import AsyncConnectionPool


@dataclass(frozen=True, kw_only=True)
class Record:
    """One answered request."""

    id: UUID
    client_key_id: str
    request_id: str
    body_sha256: str
    """Of image and fields: tells a client's retry from another request under the same Idempotency-Key."""
    patient_pseudonym: str | None
    assignment: dict[str, Any]
    """{"key": "patient" | "request", "version", "arm", "weights"}"""
    attempts: list[dict[str, Any]]
    """[{"version", "outcome": "ok" | "model_error" | "invalid_output" | "deadline" | "infrastructure",
    "latency_ms"}]"""
    model: str
    served_version: str
    answer: dict[str, Any]
    """The body of the 201."""
    image_key: str
    """De-identified PNG, in bucket `predictions`."""
    metadata: dict[str, Any]


class Records:
    def __init__(self, pool: AsyncConnectionPool[AsyncConnection[DictRow]]) -> None:
        self.pool = pool

    async def add(self, record: Record) -> bool:
        """Store a record durably; False when the id exists already (a retry that raced this one)."""
        async with self.pool.connection() as connection:
            cursor = await connection.execute(
                """INSERT INTO predictions (id, client_key_id, request_id, body_sha256, patient_pseudonym,
                       assignment, attempts, model, served_version, answer, image_key, metadata)
                   VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s) ON CONFLICT (id) DO NOTHING""",
                (
                    record.id,
                    record.client_key_id,
                    record.request_id,
                    record.body_sha256,
                    record.patient_pseudonym,
                    Jsonb(record.assignment),
                    Jsonb(record.attempts),
                    record.model,
                    record.served_version,
                    Jsonb(record.answer),
                    record.image_key,
                    Jsonb(record.metadata),
                ),
            )
            return cursor.rowcount == 1

    async def get(self, prediction_id: UUID) -> DictRow | None:
        """The stored row with its explanation (NULL until one was made), None for an unknown id."""
        async with self.pool.connection() as connection:
            cursor = await connection.execute(
                """SELECT p.*, e.explanation FROM predictions p
                   LEFT JOIN explanations e ON e.prediction_id = p.id WHERE p.id = %s""",
                (prediction_id,),
            )
            return await cursor.fetchone()

    async def add_explanation(self, prediction_id: UUID, explanation: dict[str, Any]) -> dict[str, Any]:
        """Store an explanation unless there is one; returns the one that is kept."""
        async with self.pool.connection() as connection:
            cursor = await connection.execute(
                """INSERT INTO explanations (prediction_id, explanation) VALUES (%s, %s)
                   ON CONFLICT (prediction_id) DO UPDATE SET prediction_id = excluded.prediction_id
                   RETURNING explanation""",
                (prediction_id, Jsonb(explanation)),
            )
            row = await cursor.fetchone()
        assert row is not None
        kept: dict[str, Any] = row["explanation"]
        return kept
