"""The attempt ledger: one durable record a request, before the caller is answered.

A record goes to PostgreSQL in one statement with those that wait at that moment. While PostgreSQL or the object store
is away it goes to the journal of this node, with the image where that is what waits, and from there to where it belongs
(`serve.replay`). Audit, idempotency and the canary's statistics derive from it. Nothing in it identifies a patient.
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
from serve.grouped import Grouped
from serve.journal import Journal, JournalError
from serve.journal_file import Entry
from serve.line import AwayError, Line
from serve.presence import Presence
from serve.problems import Problem, unavailable
from serve.record_rows import INSERTS, MAX_GROUP, Failure, Kind, Mirrored, Record, write
from serve.replay import Replay

LOOK_UP = """SELECT p.*, e.explanation FROM predictions p
             LEFT JOIN explanations e ON e.prediction_id = p.id WHERE p.id = ANY(%s)"""


@dataclass(frozen=True, kw_only=True)
class RecordsConfig:
    deadline_s: float = 2.0
    """Of one statement; a database that takes longer counts as away until it answers again."""


@dataclass(frozen=True, kw_only=True)
class Kept:
    """What became of a record."""

    stored: Literal["yes", "pending"]
    """`pending`: durable on this node, on its way to PostgreSQL or the object store."""
    earlier: DictRow | None = None
    """The row that was kept under this id before, in whose favour this record was dropped."""


class Records:
    """Keeps and finds records; one per front-door replica."""

    def __init__(
        self,
        database_url: str,
        store: ObjectStore,
        journal: Journal | None,
        config: RecordsConfig | None = None,
    ) -> None:
        """Args:
        journal: None on a node that has no place for one; what cannot be stored at once is then refused.
        """
        deadline_s = (config or RecordsConfig()).deadline_s
        self.database = Presence("PostgreSQL")
        self.objects = Presence("the object store")
        self.journal = journal
        self._reader = Line(database_url, self.database, deadline_s=deadline_s)
        self._writer = Line(database_url, self.database, deadline_s=deadline_s)
        self._replayer = Line(database_url, self.database, deadline_s=deadline_s, probes=True)
        self._lines = (self._reader, self._writer, self._replayer)
        self._replay = Replay(journal, self._replayer, store, self.objects)
        self._writes: dict[Kind, Grouped[dict[str, Any], bool]] = {
            kind: Grouped(partial(write, self._writer, statement), most=MAX_GROUP)
            for kind, statement in INSERTS.items()
        }
        self._finds: Grouped[UUID, DictRow | None] = Grouped(self._find_all, most=MAX_GROUP)
        self._stop = asyncio.Event()
        self._replaying: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Make journal and connections ready and begin to replay; the database need not be there."""
        if self.journal is not None:
            await self.journal.open()
        await asyncio.gather(self._replay.ask_objects(), *(_greet(line) for line in self._lines))
        self._replaying = asyncio.create_task(self._replay.run(self._stop))

    async def close(self) -> None:
        """End after what is under way; what is not replayed stays for the next front door of this node."""
        self._stop.set()
        if self._replaying is not None:
            await self._replaying
        for line in self._lines:
            await line.close()
        if self.journal is not None:
            await self.journal.close()

    async def look(self) -> None:
        """Ask what is taken to be here whether it is; what is known to be away is asked by the replay."""
        asks = []
        if self.database.here:
            asks.append(self._replay.ask_database())
        if self.objects.here:
            asks.append(self._replay.ask_objects())
        await asyncio.gather(*asks)

    async def keep(self, record: Record, image: bytes | None) -> Kept:
        """Keep the record of an answer durably.

        Args:
            image: the PNG, when the object store would not take it.
        Raises:
            Problem: 503, neither PostgreSQL nor the journal can keep it.
        """
        row = record.as_row()
        kept = await self._insert(record.id, row) if image is None else None
        if kept is not None:
            return kept
        pending = {**row, "answer": {**record.answer, "stored": "pending"}}
        earlier = await self._note(Entry(kind="prediction", id=record.id, row=pending, image=image))
        if earlier is None and image is not None:
            kept = await self._insert(record.id, pending)
            if kept is not None:
                return Kept(stored="pending", earlier=kept.earlier)
        self._replay.rows_wait = True
        return Kept(stored="pending", earlier=earlier)

    async def keep_failure(self, failure: Failure) -> None:
        """Keep what was tried for a request that nobody answered.

        Raises:
            Problem: 503, as for a record.
        """
        row = failure.as_row()
        try:
            await self._writes["failure"].ask(row)
        except AwayError:
            await self._note(Entry(kind="failure", id=failure.id, row=row, image=None))
            self._replay.rows_wait = True

    async def keep_mirrored(self, mirrored: Mirrored) -> None:
        """Keep what came of a mirrored image.

        Raises:
            AwayError: the database is away; the journal is for what clients were told.
        """
        await self._writes["mirrored"].ask(mirrored.as_row())

    async def get(self, prediction_id: UUID) -> DictRow | None:
        """The row with its explanation (NULL until one was made), from this node's journal while it waits there;
        None for an unknown id.

        Raises:
            Problem: 503, the database is away and this node does not have it.
        """
        row, asked = await self._in_database(prediction_id)
        if row is not None:
            return row
        entry = await self._in_journal(prediction_id, asked)
        if entry is None and not asked:
            raise unavailable("the database")
        return _as_stored(entry) if entry is not None else None

    async def find_earlier(self, prediction_id: UUID) -> DictRow | None:
        """The row that an earlier request under the same Idempotency-Key left, as far as it can be known here.

        One that another front door of this node keeps is kept here too before it is told again, since the other's
        fsync may not be over.
        """
        row, asked = await self._in_database(prediction_id)
        if row is not None:
            return row
        entry = await self._in_journal(prediction_id, asked)
        if entry is None:
            return None
        self._replay.rows_wait = True
        return await self._note(entry) or _as_stored(entry)

    async def add_explanation(self, prediction_id: UUID, explanation: dict[str, Any]) -> dict[str, Any]:
        """Store an explanation unless there is one; returns the one that is kept, or this one while none can be."""
        try:
            rows = await self._reader.ask(
                """INSERT INTO explanations (prediction_id, explanation)
                   SELECT id, %s FROM predictions WHERE id = %s
                   ON CONFLICT (prediction_id) DO UPDATE SET prediction_id = excluded.prediction_id
                   RETURNING explanation""",
                (Jsonb(explanation), prediction_id),
            )
        except AwayError:
            return explanation
        kept: dict[str, Any] = rows[0]["explanation"] if rows else explanation
        return kept

    async def note_read(self, key_id: str, prediction_id: UUID, what: str) -> None:
        """Keep in the audit who was shown what of a prediction that another key sent; before it is shown.

        Raises:
            Problem: 503, the database is away.
        """
        try:
            await self._writer.ask(
                "INSERT INTO audit (actor, action, subject, detail) VALUES (%s, 'read', %s, %s)",
                (key_id, f"prediction/{prediction_id}", Jsonb({"what": what})),
            )
        except AwayError as error:
            raise unavailable("the database") from error

    def can_keep(self) -> bool:
        """Whether the journal would take what cannot be stored at once, as far as is known."""
        return self.journal is not None and not self.journal.trouble

    def journal_state(self) -> str:
        """One word or two for people who look at `/readyz`."""
        if self.journal is None:
            return "none: RAYDIOLOGY_JOURNAL is not set"
        if self.journal.trouble:
            return f"refuses: {self.journal.trouble}"
        return "ok" if not self.journal.waiting else f"ok: {self.journal.waiting} records wait"

    async def _insert(self, record_id: UUID, row: dict[str, Any]) -> Kept | None:
        """None while PostgreSQL is away."""
        try:
            if await self._writes["prediction"].ask(row):
                return Kept(stored="yes")
            earlier = await self._finds.ask(record_id)
        except AwayError:
            return None
        assert earlier is not None, "nothing deletes predictions"
        return Kept(stored="yes", earlier=earlier)

    async def _note(self, entry: Entry) -> DictRow | None:
        """Keep an entry in the journal; what it keeps under that id already, else None."""
        if self.journal is None:
            raise unavailable("the object store" if self.database.here else "the database")
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
        """The row, and whether PostgreSQL could be asked for it."""
        try:
            return await self._finds.ask(prediction_id), True
        except AwayError:
            return None, False

    async def _in_journal(self, prediction_id: UUID, asked: bool) -> Entry | None:
        if self.journal is None:
            return None
        if asked and not (self.journal.has(prediction_id) or self.journal.others_wait):
            return None  # nothing waits on this node, so the look into the folder is spared
        entry = await self.journal.find(prediction_id)
        return entry if entry is not None and entry.kind == "prediction" else None

    async def _find_all(self, ids: list[UUID]) -> list[DictRow | None]:
        rows = {row["id"]: row for row in await self._reader.ask(LOOK_UP, (ids,))}
        return [rows.get(one) for one in ids]


async def _greet(line: Line) -> None:
    """Connect before the first request needs it."""
    with contextlib.suppress(AwayError):  # the line has noted it
        await line.ask("SELECT 1")


def _as_stored(entry: Entry) -> DictRow:
    """An entry's row as PostgreSQL would give it."""
    created_at = datetime.fromisoformat(entry.row["created_at"])
    return {**entry.row, "id": entry.id, "created_at": created_at, "explanation": None}
