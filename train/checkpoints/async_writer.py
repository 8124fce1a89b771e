"""A thread on each rank that serialises and uploads snapshots while training goes on.

The threads of all ranks agree, over a process group of their own, on the one checkpoint in flight. Later offers wait,
and the newest replaces the waiting one: a store that is down for a while costs the checkpoints between, and no
training.
"""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch.distributed as dist

from cluster.expected import first_line
from train.checkpoints.store import CheckpointStore, Files, Mark, Receipt, Retention, folder_name
from train.checkpoints.temp_folders import scratch

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.2, 5.0
PATIENCE_S = 600.0
"""Seconds that the end of a run, and a start, wait for a store that does not answer."""
STOP_S = 5.0

Write = Callable[[Path], None]
logger = logging.getLogger(__name__)


class StoreUnavailableError(OSError):
    """The store did not take a checkpoint, or give one, within the patience; the message is one line."""


@dataclass(frozen=True)
class Offer:
    mark: Mark
    write: Write


@dataclass
class Waiting:
    """Offers of the training thread that are not committed yet; guarded by its lock."""

    lock: threading.Condition = field(default_factory=threading.Condition)
    newest: Offer | None = None
    stopped: bool = False
    deadline: float | None = None
    """Time after which the store is not tried again; None while training goes on."""

    def put(self, offer: Offer) -> None:
        with self.lock:
            self.newest = offer
            self.lock.notify_all()

    def propose(self) -> Offer | None:
        """Wait for the newest offer and return it; None when the writer should end."""
        with self.lock:
            self.lock.wait_for(lambda: self.stopped or self.newest is not None)
            return None if self.stopped else self.newest

    def done(self, offer: Offer) -> None:
        """Drop an offer that was committed, or given up for a newer one."""
        with self.lock:
            if self.newest is offer:
                self.newest = None
            self.lock.notify_all()

    def newer_than(self, offer: Offer, timeout_s: float) -> bool:
        """Wait a while for a newer offer. Returns True if there is one."""
        with self.lock:
            return self.lock.wait_for(lambda: self.newest is not offer or self.stopped, timeout_s)

    @property
    def in_vain(self) -> bool:
        with self.lock:
            return self.stopped or (self.deadline is not None and time.monotonic() > self.deadline)


class CheckpointWriter:
    """One a rank; the training thread calls `offer` and `flush`."""

    def __init__(
        self, store: CheckpointStore, group: "dist.ProcessGroup", attempt: str, retention: Retention
    ) -> None:
        """Args:
        group: gloo, of all ranks, used by nothing else.
        attempt: eight hexadecimal digits, the same on all ranks.
        """
        self.store = store
        self.group = group
        self.attempt = attempt
        self.retention = retention
        self.rank = dist.get_rank()
        self.last: Mark | None = None
        """The newest committed checkpoint."""
        self._waiting = Waiting()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="checkpoints", daemon=True)
        self._thread.start()

    def offer(self, mark: Mark, write: Write) -> None:
        """Queue a checkpoint; returns at once.

        Raises:
            OSError, RuntimeError: an earlier checkpoint ended the writer.
        """
        self._raise()
        self._waiting.put(Offer(mark, write))

    def flush(self, patience_s: float = PATIENCE_S) -> None:
        """Wait until the newest offer is committed.

        Raises:
            StoreUnavailableError: the store did not accept it within `patience_s`.
        """
        with self._waiting.lock:
            self._waiting.deadline = time.monotonic() + patience_s
            self._waiting.lock.wait_for(lambda: self._waiting.newest is None or self._error is not None)
            self._waiting.deadline = None
        self._raise()

    def stop(self) -> None:
        """End the thread; uncommitted offers are dropped."""
        with self._waiting.lock:
            self._waiting.stopped = True
            self._waiting.lock.notify_all()
        self._thread.join(STOP_S)

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            if self.rank == 0:
                self._tidy(lambda: self.store.sweep(self.attempt))
            while (offer := self._waiting.propose()) is not None:
                if self._agreed(offer):
                    self._publish(offer)
        except BaseException as error:  # noqa: BLE001 - it is raised where training next looks
            self._error = error
            with self._waiting.lock:
                self._waiting.lock.notify_all()

    def _agreed(self, offer: Offer) -> bool:
        """Return True if all ranks hold the same offer; a rank that is behind waits for its training thread."""
        orders = self._gather(offer.mark.order)
        if all(order == offer.mark.order for order in orders):
            return True
        if offer.mark.order < max(orders):
            self._waiting.newer_than(offer, timeout_s=LONGEST_PAUSE_S)
        return False

    def _publish(self, offer: Offer) -> None:
        name = folder_name(offer.mark, self.attempt)
        with scratch() as folder:
            receipts = self._patiently(offer, lambda: self._upload(name, offer, folder))
        parts = self._gather(receipts)
        whole = all(receipts_of_rank is not None for receipts_of_rank in parts)
        if whole and self.rank == 0:
            files: Files = {file: receipt for part in parts for file, receipt in part.items()}
            whole = self._patiently(offer, lambda: self._commit(name, files)) is not None
        committed = bool(self._gather(whole)[0])
        if committed:
            self.last = offer.mark
        elif any(self._gather(self._waiting.in_vain)):
            raise StoreUnavailableError(
                f"checkpoint of step {offer.mark.step} could not be stored for {PATIENCE_S:.0f} s: `make status` shows "
                "whether the S3 server runs and its disk has space; run the same command again to go on"
            )
        self._waiting.done(offer)
        if committed and self.rank == 0:
            self._tidy(lambda: self.store.prune(self.retention, name))

    def _upload(self, name: str, offer: Offer, folder: Path) -> dict[str, Receipt]:
        for old in folder.iterdir():
            old.unlink()
        offer.write(folder)
        return {file.name: self.store.put(name, file) for file in sorted(folder.iterdir())}

    def _commit(self, name: str, files: Files) -> bool:
        self.store.commit(name, files)
        return True

    def _patiently(self, offer: Offer, work: Callable[[], object]) -> object | None:
        """Retry `work` and return its result; None if a newer checkpoint waits, or the patience is over."""
        pause_s, warned = FIRST_PAUSE_S, False
        while True:
            try:
                return work()
            except OSError as error:
                if not warned:
                    warned = True
                    logger.warning(
                        "the checkpoint of step %d cannot be stored (%s); training goes on and it is tried again",
                        offer.mark.step,
                        first_line(error),
                    )
            if self._waiting.newer_than(offer, pause_s) or self._waiting.in_vain:
                return None
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    def _tidy(self, work: Callable[[], list[str]]) -> None:
        """Delete what is not needed; if the store does not answer, the next call does it."""
        try:
            work()
        except OSError as error:
            logger.warning("old checkpoints stay until the next one: %s", first_line(error))

    def _gather(self, mine: object) -> list[Any]:
        values: list[Any] = [None] * dist.get_world_size(self.group)
        dist.all_gather_object(values, mine, group=self.group)
        return values
