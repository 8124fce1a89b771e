"""The attempt ledger: one durable record a request, written before the caller is answered.

Records that wait at the same moment go to PostgreSQL in one statement. While PostgreSQL or the object store is
down a record goes to this node's journal, with the image if the object store has not taken it, and is replayed
later (`serve.ledger.journal_replay`). Audit, idempotency and the canary's statistics derive from it. Nothing in it
identifies a patient.
"""

import asyncio
import contextlib
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, Literal
from uuid import UUID

from psycopg.rows import DictRow
from psycopg.types.json import Jsonb

from cluster.objects import ObjectStore
from serve.dependencies.health import DependencyHealth
from serve.dependencies.postgres import DatabaseUnavailableError, PostgresConnection
from serve.ledger.group_commit import GroupCommit
from serve.ledger.journal import Journal, JournalError
from serve.ledger.journal_entry import Entry
from serve.ledger.journal_replay import Replay
from serve.ledger.rows import INSERTS, MAX_GROUP, Explained, Failure, Kind, Mirrored, Record, write
from serve.problems import Problem, unavailable

LOOK_UP = """SELECT p.*, e.explanation FROM predictions p
             LEFT JOIN explanations e ON e.prediction_id = p.id WHERE p.id = ANY(%s)"""


@dataclass(frozen=True, kw_only=True)
class RecordsConfig:
    deadline_s: float = 2.0
    """Seconds for one statement; a slower database counts as down until it answers again."""


@dataclass(frozen=True, kw_only=True)
class StoreOutcome:
    """The outcome of storing a record."""

    stored: Literal["yes", "pending"]
    """`pending`: durable on this node, on its way to PostgreSQL or the object store."""
    earlier: DictRow | None = None
    """The row stored under this id before; the new record was dropped in its favour."""


class Records:
    """Stores and finds records; one per front-door replica."""

    def __init__(
        self,
        database_url: str,
        store: ObjectStore,
        journal: Journal | None,
        config: RecordsConfig | None = None,
    ) -> None:
        """Args:
        journal: None on a node without a place for one; records that cannot be stored at once are then refused.
        """
        deadline_s = (config or RecordsConfig()).deadline_s
        self.database = DependencyHealth("PostgreSQL")
        self.objects = DependencyHealth("the object store")
        self.journal = journal
        self._reader = PostgresConnection(database_url, self.database, deadline_s=deadline_s)
        self._writer = PostgresConnection(database_url, self.database, deadline_s=deadline_s)
        self._replayer = PostgresConnection(database_url, self.database, deadline_s=deadline_s, is_probe=True)
        self._connections = (self._reader, self._writer, self._replayer)
        self._replay = Replay(journal, self._replayer, store, self.objects)
        self._writes: dict[Kind, GroupCommit[dict[str, Any], bool]] = {
            kind: GroupCommit(partial(write, self._writer, statement), max_group=MAX_GROUP)
            for kind, statement in INSERTS.items()
        }
        self._finds: GroupCommit[UUID, DictRow | None] = GroupCommit(self._find_all, max_group=MAX_GROUP)
        self._stop = asyncio.Event()
        self._replaying: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Open journal and connections and start the replay; the database may be down."""
        if self.journal is not None:
            await self.journal.open()
        await asyncio.gather(
            self._replay.ask_objects(), *(_greet(connection) for connection in self._connections)
        )
        self._replaying = asyncio.create_task(self._replay.run(self._stop))

    async def close(self) -> None:
        """Finish what is under way and stop; unreplayed entries stay for the next front door of this node."""
        self._stop.set()
        if self._replaying is not None:
            await self._replaying
        for connection in self._connections:
            await connection.close()
        if self.journal is not None:
            await self.journal.close()

    async def look(self) -> None:
        """Check the dependencies that count as up; the replay probes those that are down."""
        asks = []
        if self.database.is_up:
            asks.append(self._replay.ask_database())
        if self.objects.is_up:
            asks.append(self._replay.ask_objects())
        await asyncio.gather(*asks)

    async def keep(self, record: Record, image: bytes | None) -> StoreOutcome:
        """Store the record of an answer durably.

        Args:
            image: the PNG, if the object store did not accept it.
        Raises:
            Problem: 503, neither PostgreSQL nor the journal accepts it.
        """
        row = record.as_row()
        stored = await self._insert(record.id, row) if image is None else None
        if stored is not None:
            return stored
        pending = {**row, "answer": {**record.answer, "stored": "pending"}}
        earlier = await self._note(Entry(kind="prediction", id=record.id, row=pending, image=image))
        if earlier is None and image is not None:
            stored = await self._insert(record.id, pending)
            if stored is not None:
                return StoreOutcome(stored="pending", earlier=stored.earlier)
        self._replay.rows_wait = True
        return StoreOutcome(stored="pending", earlier=earlier)

    async def keep_failure(self, failure: Failure) -> None:
        """Store the attempts of a request that no version answered.

        Raises:
            Problem: 503, as for a record.
        """
        row = failure.as_row()
        try:
            await self._writes["failure"].submit(row)
        except DatabaseUnavailableError:
            await self._note(Entry(kind="failure", id=failure.id, row=row, image=None))
            self._replay.rows_wait = True

    async def keep_mirrored(self, mirrored: Mirrored) -> None:
        """Store the outcome of a mirrored image.

        Raises:
            DatabaseUnavailableError: the database is down; the journal is only for answers to clients.
        """
        await self._writes["mirrored"].submit(mirrored.as_row())

    async def keep_explained(self, explained: Explained) -> None:
        """Store the outcome of an explanation attempt.

        Raises:
            DatabaseUnavailableError: as `keep_mirrored`.
        """
        await self._writes["explained"].submit(explained.as_row())

    async def get(self, prediction_id: UUID) -> DictRow | None:
        """Return the row with its explanation (NULL until there is one), from this node's journal while it waits
        there; None for an unknown id.

        Raises:
            Problem: 503, the database is down and this node does not have the record.
        """
        row, reached = await self._in_database(prediction_id)
        if row is not None:
            return row
        entry = await self._in_journal(prediction_id, reached)
        if entry is None and not reached:
            raise unavailable("the database")
        return _as_stored(entry) if entry is not None else None

    async def find_earlier(self, prediction_id: UUID) -> DictRow | None:
        """Return the row that an earlier request under the same Idempotency-Key left, if it can be found here.

        An entry in another front door's journal is written to this one's too before it is returned: the other's fsync
        may not be over.
        """
        row, reached = await self._in_database(prediction_id)
        if row is not None:
            return row
        entry = await self._in_journal(prediction_id, reached)
        if entry is None:
            return None
        self._replay.rows_wait = True
        return await self._note(entry) or _as_stored(entry)

    async def add_explanation(self, prediction_id: UUID, explanation: dict[str, Any]) -> dict[str, Any]:
        """Store an explanation unless there is one; return the stored one, or this one while the database is down."""
        try:
            rows = await self._reader.execute(
                """INSERT INTO explanations (prediction_id, explanation)
                   SELECT id, %s FROM predictions WHERE id = %s
                   ON CONFLICT (prediction_id) DO UPDATE SET prediction_id = excluded.prediction_id
                   RETURNING explanation""",
                (Jsonb(explanation), prediction_id),
            )
        except DatabaseUnavailableError:
            return explanation
        return rows[0]["explanation"] if rows else explanation

    async def note_read(self, key_id: str, prediction_id: UUID, what: str) -> None:
        """Write to the audit, before it is shown, which key reads what of a prediction that another key sent.

        Raises:
            Problem: 503, the database is down.
        """
        try:
            await self._writer.execute(
                "INSERT INTO audit (actor, action, subject, detail) VALUES (%s, 'read', %s, %s)",
                (key_id, f"prediction/{prediction_id}", Jsonb({"what": what})),
            )
        except DatabaseUnavailableError as error:
            raise unavailable("the database") from error

    def can_keep(self) -> bool:
        """Return True if the journal would accept an entry, as far as is known."""
        return self.journal is not None and not self.journal.trouble

    def journal_state(self) -> str:
        """Describe the journal in a few words for `/readyz`."""
        if self.journal is None:
            return "none: RAYDIOLOGY_JOURNAL is not set"
        if self.journal.trouble:
            return f"refuses: {self.journal.trouble}"
        return "ok" if not self.journal.waiting else f"ok: {self.journal.waiting} records wait"

    async def _insert(self, record_id: UUID, row: dict[str, Any]) -> StoreOutcome | None:
        """Insert a record; None while PostgreSQL is down."""
        try:
            if await self._writes["prediction"].submit(row):
                return StoreOutcome(stored="yes")
            earlier = await self._finds.submit(record_id)
        except DatabaseUnavailableError:
            return None
        assert earlier is not None, "nothing deletes predictions"
        return StoreOutcome(stored="yes", earlier=earlier)

    async def _note(self, entry: Entry) -> DictRow | None:
        """Append an entry to the journal; return the row it already has under that id, else None."""
        if self.journal is None:
            raise unavailable("the object store" if self.database.is_up else "the database")
        try:
            earlier = await self.journal.append(entry)
        except JournalError as error:
            raise Problem(
                503,
                f"the answer cannot be stored: a dependency is away, and the journal refuses: {error}; retry later",
                headers={"Retry-After": "30"},
            ) from error
        return _as_stored(earlier) if earlier is not None else None

    async def _in_database(self, prediction_id: UUID) -> tuple[DictRow | None, bool]:
        """Return the row, and whether PostgreSQL answered."""
        try:
            return await self._finds.submit(prediction_id), True
        except DatabaseUnavailableError:
            return None, False

    async def _in_journal(self, prediction_id: UUID, reached: bool) -> Entry | None:
        if self.journal is None:
            return None
        if reached and not (self.journal.has(prediction_id) or self.journal.others_wait):
            return None  # no entry waits on this node: spare the search of the folder
        entry = await self.journal.find(prediction_id)
        return entry if entry is not None and entry.kind == "prediction" else None

    async def _find_all(self, ids: list[UUID]) -> list[DictRow | None]:
        rows = {row["id"]: row for row in await self._reader.execute(LOOK_UP, (ids,))}
        return [rows.get(prediction_id) for prediction_id in ids]


async def _greet(connection: PostgresConnection) -> None:
    """Connect before the first request needs the connection."""
    with contextlib.suppress(DatabaseUnavailableError):  # the connection has marked it down
        await connection.execute("SELECT 1")


def _as_stored(entry: Entry) -> DictRow:
    """Return an entry's row as PostgreSQL would."""
    created_at = datetime.fromisoformat(entry.row["created_at"])
    return {**entry.row, "id": entry.id, "created_at": created_at, "explanation": None}
