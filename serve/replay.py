"""Bring what the journal holds to where it belongs, as soon as PostgreSQL and the object store answer again.

It also asks those that are away whether they are back, so that no request has to. Everything is safe to repeat: a
replay that dies is done again by the next front door, and nothing is doubled.
"""

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from typing import Any

from cluster.objects import ObjectStore, ObjectStoreError
from serve.journal import Journal
from serve.journal_file import Entry
from serve.journal_segment import Segment
from serve.line import AwayError, Line
from serve.presence import Presence
from serve.record_rows import COMPLETE, INSERTS, write

logger = logging.getLogger(__name__)

PAUSE_S = 0.5
"""Between two looks: how long something may be back without being used."""


class Replay:
    def __init__(self, journal: Journal | None, line: Line, store: ObjectStore, objects: Presence) -> None:
        """Args:
        line: one that probes.
        """
        self.journal = journal
        self.line = line
        self.store = store
        self.database = line.database
        self.objects = objects
        self.rows_wait = False
        """Whether this front door's own file has rows that PostgreSQL has not got."""

    async def run(self, stop: asyncio.Event) -> None:
        """Look again and again until `stop`."""
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
        """Ask who is away, and replay what can be."""
        if not self.database.here:
            await self.ask_database()
        if not self.objects.here:
            await self.ask_objects()
        if self.journal is None:
            return
        await self.journal.look_around()
        if not self.database.here:
            return
        own, self.rows_wait = self.objects.here or self.rows_wait, False
        for segment in await self.journal.take_up(own=own):
            if self.objects.here or not segment.rows_kept:
                await self._replay(self.journal, segment)

    async def ask_database(self) -> None:
        """Note whether PostgreSQL answers."""
        with contextlib.suppress(AwayError):  # the line has noted it
            await self.line.ask("SELECT 1")

    async def ask_objects(self) -> None:
        """Note whether the object store answers."""
        try:
            await asyncio.to_thread(self.store.exists, "predictions", "readyz")
        except ObjectStoreError as error:
            self.objects.lost(error)
        else:
            self.objects.found()

    async def _replay(self, journal: Journal, segment: Segment) -> None:
        entries = images = 0
        try:
            async for batch in journal.batches(segment):
                in_store = await self._put_images(batch)
                await self._write_rows(segment, batch, in_store)
                entries, images = entries + len(batch), images + len(batch) - len(in_store)
        except AwayError:
            return
        if images:
            segment.rows_kept = True
            return
        await journal.replayed(segment)
        if entries:
            logger.warning("%d records of the journal are where they belong", entries)

    async def _put_images(self, batch: Sequence[Entry]) -> set[int]:
        """Where in the batch the image is in the store, now or since long."""
        in_store = {nth for nth, entry in enumerate(batch) if entry.image is None}
        for nth, entry in enumerate(batch):
            if entry.image is not None and self.objects.here:
                try:
                    await asyncio.to_thread(
                        self.store.put, "predictions", entry.row["image_key"], entry.image
                    )
                except ObjectStoreError as error:
                    self.objects.lost(error)
                else:
                    in_store.add(nth)
        return in_store

    async def _write_rows(self, segment: Segment, batch: Sequence[Entry], in_store: set[int]) -> None:
        """A row says `stored: yes` once its image is in the store."""
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
        return await write(self.line, statement, rows) if rows else []


def _says_yes(row: dict[str, Any]) -> dict[str, Any]:
    return {**row, "answer": {**row["answer"], "stored": "yes"}}
