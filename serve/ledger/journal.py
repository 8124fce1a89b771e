"""The on-disk journal of a front door: answered requests that PostgreSQL or the object store could not take yet.

An entry is durable when `append` returns (one fsync for all that wait). Every front door of a node has its own
file in the one folder and finds entries in the files of the others; the next front door takes up the files of a
dead one (`serve.ledger.journal_replay`). Entries are sealed. Knows neither PostgreSQL nor the object store. No
library of the lock has a sealed append-only file with one fsync for a group.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar
from uuid import UUID

from cluster.embedded.home import PRIVATE_DIRECTORY
from serve.ledger.group_commit import GroupCommit
from serve.ledger.journal_entry import Entry, TornError, encode, read_entry, read_header
from serve.ledger.journal_segment import SUFFIX, Segment

logger = logging.getLogger(__name__)
T = TypeVar("T")

MAX_GROUP = 64
BATCH_BYTES = 16 * 2**20
"""Bytes of images that a replay holds at a time."""


class JournalError(RuntimeError):
    """The journal cannot store an entry; the caller is asked to retry."""


@dataclass(frozen=True, kw_only=True)
class JournalConfig:
    max_bytes: int = 2 * 2**30
    """All files of the folder together; beyond it predictions are refused until the journal is replayed."""


@dataclass
class _Seen:
    """How far another front door's file has been indexed."""

    offset: int = 0
    at: dict[UUID, int] = field(default_factory=dict)
    """Id → offset of its entry."""


class Journal:
    def __init__(self, folder: Path, key: bytes, config: JournalConfig | None = None) -> None:
        self.folder = folder
        self.trouble = ""
        """Why the last write failed; empty when all is well."""
        self.others_wait = False
        """Whether another front door's file had entries at the last `look_around`."""
        self._key = key
        self._config = config or JournalConfig()
        self._thread = ThreadPoolExecutor(1, "journal")
        self._appends: GroupCommit[Entry, Entry | None] = GroupCommit(
            lambda entries: self._in_thread(lambda: self._append(entries)), max_group=MAX_GROUP
        )
        self._current: Segment | None = None
        self._held: list[Segment] = []
        self._own: dict[UUID, tuple[Segment, int]] = {}
        self._others: dict[Path, _Seen] = {}

    @property
    def waiting(self) -> int:
        """Entries that this front door has written or taken up, and not replayed yet."""
        return len(self._own)

    async def open(self) -> None:
        """Create folder and file, so that trouble shows early; it is noted in `trouble`, not raised."""
        try:
            await self._in_thread(self._begin)
        except OSError as error:
            self.trouble = f"{type(error).__name__}: {error.strerror}"
            logger.exception("cannot open the journal in %s", self.folder)

    async def append(self, entry: Entry) -> Entry | None:
        """Write an entry durably; return the entry already stored under its id, else None.

        Raises:
            JournalError: the journal or its disk is full, or the disk is broken.
        """
        return await self._appends.submit(entry)

    async def find(self, entry_id: UUID) -> Entry | None:
        """Return an entry of this node that waits for its replay."""
        if entry_id in self._own:
            return await self._in_thread(lambda: self._read_own(entry_id))
        return await self._in_thread(lambda: self._find_elsewhere(entry_id))

    def has(self, entry_id: UUID) -> bool:
        """Return True if this front door wrote the entry or has taken it up."""
        return entry_id in self._own

    async def look_around(self) -> None:
        """Check whether other front doors' files hold entries."""
        others = await self._in_thread(self._other_files)
        self.others_wait = any(size > 0 for _, size in others)

    async def take_up(self, *, own: bool) -> list[Segment]:
        """Return the segments to replay: those of dead front doors, and with `own` what this one has written so far."""
        return await self._in_thread(lambda: self._take_up(own))

    async def batches(self, segment: Segment) -> AsyncIterator[list[Entry]]:
        """Yield every entry of a segment that `take_up` returned, in batches of bounded size."""
        entries = segment.entries(self._key)
        while batch := await self._in_thread(lambda: _some(entries)):
            yield batch

    async def replayed(self, segment: Segment) -> None:
        """Remove a segment whose entries are all stored."""
        await self._in_thread(lambda: self._forget(segment))

    async def close(self) -> None:
        """Release the files, so that the next front door of this node can take them up."""
        await self._in_thread(self._release)
        self._thread.shutdown()

    async def _in_thread(self, work: Callable[[], T]) -> T:
        """Run in the journal's one thread, so that no two operations overlap."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def _begin(self) -> Segment:
        self.folder.mkdir(mode=PRIVATE_DIRECTORY, parents=True, exist_ok=True)
        self._current = Segment.begin(self.folder)
        self.trouble = ""
        return self._current

    def _append(self, entries: list[Entry]) -> list[Entry | Exception | None]:
        """Write the entries; of equal ids in one group the first is stored."""
        fresh: dict[UUID, Entry] = {}
        for entry in entries:
            if entry.id not in self._own:
                fresh.setdefault(entry.id, entry)
        blobs = {entry_id: encode(entry, self._key) for entry_id, entry in fresh.items()}
        try:
            self._write(blobs)
        except (OSError, JournalError) as error:
            self.trouble = (
                error.strerror or type(error).__name__ if isinstance(error, OSError) else str(error)
            )
            logger.error("cannot keep %d records in the journal: %s", len(blobs), self.trouble)
            failed = JournalError(self.trouble)
            return [failed if entry.id in fresh else self._read_own(entry.id) for entry in entries]
        return [None if fresh.get(entry.id) is entry else self._read_own(entry.id) for entry in entries]

    def _write(self, blobs: dict[UUID, bytes]) -> None:
        if not blobs:
            return
        whole = b"".join(blobs.values())
        used = sum(size for _, size in self._files())
        if used + len(whole) > self._config.max_bytes:
            raise JournalError(f"it is full with {used:,} bytes")
        segment = self._current or self._begin()
        offset = segment.size
        try:
            segment.append(whole)
        except OSError:
            self._held.append(segment)  # after a failed fsync nothing more is trusted to this file
            self._current = None
            raise
        self.trouble = ""
        for entry_id, blob in blobs.items():
            self._own[entry_id] = (segment, offset)
            offset += len(blob)

    def _read_own(self, entry_id: UUID) -> Entry | None:
        if entry_id not in self._own:  # replayed meanwhile
            return None
        segment, offset = self._own[entry_id]
        return self._read_at(segment.path, offset)

    def _read_at(self, path: Path, offset: int) -> Entry | None:
        try:
            with path.open("rb") as file:
                file.seek(offset)
                return read_entry(file, self._key)
        except (FileNotFoundError, TornError):  # another front door has replayed it, or is still writing it
            return None

    def _find_elsewhere(self, entry_id: UUID) -> Entry | None:
        others = self._other_files()
        for gone in self._others.keys() - {path for path, _ in others}:
            del self._others[gone]
        for path, size in others:
            seen = self._others.setdefault(path, _Seen())
            if size > seen.offset:
                _look_through(path, size, seen)
            if entry_id in seen.at:
                return self._read_at(path, seen.at[entry_id])
        return None

    def _files(self) -> list[tuple[Path, int]]:
        """Return every file of the folder with its size."""
        files = []
        for path in sorted(self.folder.glob(f"*{SUFFIX}")):
            try:
                files.append((path, path.stat().st_size))
            except FileNotFoundError:  # replayed by another front door just now
                continue
        return files

    def _other_files(self) -> list[tuple[Path, int]]:
        own = {segment.path for segment in self._segments()}
        return [(path, size) for path, size in self._files() if path not in own]

    def _segments(self) -> list[Segment]:
        return [*self._held, *([self._current] if self._current is not None else [])]

    def _take_up(self, own: bool) -> list[Segment]:
        if own and self._current is not None and self._current.size > 0:
            self._held.append(self._current)
            self._current = None
        for path, _ in self._other_files():
            left = Segment.adopt(path)
            if left is not None:
                logger.warning("taking up %s, which a front door left: %d bytes", path.name, left.size)
                self._held.append(left)
                _look_through(path, left.size, seen := _Seen())
                self._own = {**{entry_id: (left, at) for entry_id, at in seen.at.items()}, **self._own}
        return list(self._held)

    def _forget(self, segment: Segment) -> None:
        segment.remove()
        self.trouble = ""  # there is room again
        self._held.remove(segment)
        self._own = {entry_id: where for entry_id, where in self._own.items() if where[0] is not segment}

    def _release(self) -> None:
        for segment in self._segments():
            if segment.size == 0:
                segment.remove()
            else:
                segment.release()
        self._held, self._current = [], None


def _some(entries: Iterator[Entry]) -> list[Entry]:
    batch: list[Entry] = []
    held_bytes = 0
    for entry in entries:
        batch.append(entry)
        held_bytes += len(entry.image or b"")
        if len(batch) >= MAX_GROUP or held_bytes >= BATCH_BYTES:
            break
    return batch


def _look_through(path: Path, size: int, seen: _Seen) -> None:
    """Index entries that were added since; one that is still being written is indexed next time."""
    try:
        with path.open("rb") as file:
            file.seek(seen.offset)
            while (header := read_header(file)) is not None and seen.offset + header.entry_bytes <= size:
                seen.at[header.id] = seen.offset
                seen.offset += header.entry_bytes
                file.seek(seen.offset)
    except (FileNotFoundError, TornError):
        return
