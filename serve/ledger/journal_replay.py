"""Replay journal entries to PostgreSQL and the object store as soon as both answer again.

The replay also probes dependencies that are down, so no request has to. Everything is safe to repeat: an interrupted
replay is done again by the next front door and doubles nothing.
"""

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from typing import Any

from cluster.objects import ObjectStore, ObjectStoreError
from serve.dependencies.health import DependencyHealth
from serve.dependencies.postgres import DatabaseUnavailableError, PostgresConnection
from serve.ledger.journal import Journal
from serve.ledger.journal_entry import Entry
from serve.ledger.journal_segment import Segment
from serve.ledger.rows import COMPLETE, INSERTS, write

logger = logging.getLogger(__name__)

PAUSE_S = 0.5
"""Seconds between two rounds, and so the longest a recovered dependency stays unused."""


class Replay:
    def __init__(
        self,
        journal: Journal | None,
        connection: PostgresConnection,
        store: ObjectStore,
        objects: DependencyHealth,
    ) -> None:
        """Args: connection is a probe."""
        self.journal = journal
        self.connection = connection
        self.store = store
        self.database = connection.database
        self.objects = objects
        self.rows_wait = False
        """Whether this front door's own file has rows that PostgreSQL lacks."""

    async def run(self, stop: asyncio.Event) -> None:
        """Run rounds until `stop` is set."""
        while not stop.is_set():
            try:
                await self.look()
            except Exception:
                logger.exception("the replay of the journal failed and goes on")
            try:
                await asyncio.wait_for(stop.wait(), PAUSE_S)
            except TimeoutError:
                continue

    async def look(self) -> None:
        """Probe dependencies that are down, and replay what can be."""
        if not self.database.is_up:
            await self.ask_database()
        if not self.objects.is_up:
            await self.ask_objects()
        if self.journal is None:
            return
        await self.journal.look_around()
        if not self.database.is_up:
            return
        own, self.rows_wait = self.objects.is_up or self.rows_wait, False
        for segment in await self.journal.take_up(own=own):
            if self.objects.is_up or not segment.rows_kept:
                await self._replay(self.journal, segment)

    async def ask_database(self) -> None:
        """Check whether PostgreSQL answers, and mark it."""
        with contextlib.suppress(DatabaseUnavailableError):  # the connection has marked it down
            await self.connection.execute("SELECT 1")

    async def ask_objects(self) -> None:
        """Check whether the object store answers, and mark it."""
        try:
            await asyncio.to_thread(self.store.exists, "predictions", "readyz")
        except ObjectStoreError as error:
            self.objects.mark_down(error)
        else:
            self.objects.mark_up()

    async def _replay(self, journal: Journal, segment: Segment) -> None:
        entries = images = 0
        try:
            async for batch in journal.batches(segment):
                in_store = await self._put_images(batch)
                await self._write_rows(segment, batch, in_store)
                entries, images = entries + len(batch), images + len(batch) - len(in_store)
        except DatabaseUnavailableError:
            return
        if images:
            segment.rows_kept = True
            return
        await journal.replayed(segment)
        if entries:
            logger.warning("%d records of the journal are where they belong", entries)

    async def _put_images(self, batch: Sequence[Entry]) -> set[int]:
        """Store the batch's images; return the positions whose image is in the store."""
        in_store = {nth for nth, entry in enumerate(batch) if entry.image is None}
        for nth, entry in enumerate(batch):
            if entry.image is not None and self.objects.is_up:
                try:
                    await asyncio.to_thread(
                        self.store.put, "predictions", entry.row["image_key"], entry.image
                    )
                except ObjectStoreError as error:
                    self.objects.mark_down(error)
                else:
                    in_store.add(nth)
        return in_store

    async def _write_rows(self, segment: Segment, batch: Sequence[Entry], in_store: set[int]) -> None:
        """Write the batch's rows; a row says `stored: yes` once its image is in the store."""
        predictions = [(nth, entry) for nth, entry in enumerate(batch) if entry.kind == "prediction"]
        whole = [_says_yes(entry.row) for nth, entry in predictions if nth in in_store]
        pending = [entry.row for nth, entry in predictions if nth not in in_store]
        failures = [entry.row for entry in batch if entry.kind == "failure"]
        for statement, rows in (
            (COMPLETE, whole),
            (INSERTS["prediction"], pending),
            (INSERTS["failure"], failures),
        ):
            for row, outcome in zip(rows, await self._write(statement, rows), strict=True):
                if isinstance(outcome, Exception):
                    segment.damaged = True
                    logger.error("PostgreSQL refuses record %s: %s", row["id"], type(outcome).__name__)

    async def _write(self, statement: str, rows: list[dict[str, Any]]) -> Sequence[bool | Exception]:
        return await write(self.connection, statement, rows) if rows else []


def _says_yes(row: dict[str, Any]) -> dict[str, Any]:
    return {**row, "answer": {**row["answer"], "stored": "yes"}}
