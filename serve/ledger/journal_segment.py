"""One file of the journal: appended to and fsynced by the process that holds its lock.

The kernel drops the lock when the process dies, so a file without a lock is left over. Blocking calls; the journal
makes them in a thread of its own.
"""

import fcntl
import logging
import os
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from cluster.embedded.home import PRIVATE_FILE
from cluster.secrets import SecretError
from serve.ledger.journal_entry import MAGIC, Entry, TornError, read_entry

logger = logging.getLogger(__name__)

SUFFIX = ".journal"
DAMAGED = ".damaged"


class Segment:
    """A file whose lock this process holds."""

    def __init__(self, path: Path, file: BinaryIO, size: int) -> None:
        self.path = path
        self.size = size
        """Bytes up to which every entry is durable."""
        self.damaged = False
        """Whether an entry could not be read or stored, so that the file has to stay for inspection."""
        self.rows_kept = False
        """Whether all its rows are in the database, while images may still wait for the object store."""
        self._file = file

    @classmethod
    def begin(cls, folder: Path) -> "Segment":
        """Create a file, and name it only once it is locked, so that no process takes it for left over."""
        path = folder / f"{time.time_ns()}-{uuid.uuid4().hex}{SUFFIX}"
        draft = path.with_suffix(".draft")
        descriptor = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL, PRIVATE_FILE)
        file = os.fdopen(descriptor, "r+b", buffering=0)
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        draft.rename(path)
        _sync_folder(folder)
        return cls(path, file, 0)

    @classmethod
    def adopt(cls, path: Path) -> "Segment | None":
        """Lock a file that its process left; None while another process holds it, or once it has been replayed."""
        try:
            file = path.open("r+b", buffering=0)
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            return None
        if os.fstat(file.fileno()).st_nlink == 0:
            file.close()
            return None
        return cls(path, file, os.fstat(file.fileno()).st_size)

    def append(self, blob: bytes) -> None:
        """Write and fsync a blob, whole or not at all.

        Raises:
            OSError: the disk is full or broken; what was durable before stays so.
        """
        try:
            view = memoryview(blob)
            while view:
                view = view[os.pwrite(self._file.fileno(), view, self.size + len(blob) - len(view)) :]
            os.fdatasync(self._file.fileno())
        except OSError:
            os.ftruncate(self._file.fileno(), self.size)
            raise
        self.size += len(blob)

    def entries(self, key: bytes) -> Iterator[Entry]:
        """Yield every whole entry. A torn end was never answered and is dropped; a hole before a whole entry is
        damage.
        """
        with self.path.open("rb") as file:
            torn_at: int | None = None
            while True:
                at = file.tell()
                try:
                    entry = read_entry(file, key)
                except TornError:
                    torn_at = at if torn_at is None else torn_at
                    if not _seek_next(file, at + 1):
                        logger.warning("%s ends in a torn entry, dropped", self.path.name)
                        return
                    continue
                except SecretError:
                    self.damaged = True
                    logger.exception("%s has an entry that was sealed with another key", self.path.name)
                    continue
                if entry is None:
                    return
                if torn_at is not None:
                    self.damaged, torn_at = True, None
                    logger.error("%s has a hole before byte %d", self.path.name, at)
                yield entry

    def remove(self) -> None:
        """Delete a replayed file, or rename it for inspection if an entry could not be replayed."""
        if self.damaged:
            aside = self.path.with_suffix(DAMAGED)
            self.path.rename(aside)
            logger.error("%s is kept for a person to look at", aside)
        else:
            self.path.unlink()
        self.release()

    def release(self) -> None:
        self._file.close()


def _seek_next(file: BinaryIO, start: int) -> bool:
    """Seek to the next place where an entry may begin; False if there is none."""
    file.seek(start)
    position = file.read().find(MAGIC)
    if position >= 0:
        file.seek(start + position)
    return position >= 0


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
