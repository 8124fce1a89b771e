"""The checkpoints of one attempt at a run: the one that it resumes from, and the next ones.

All ranks decide together: rank 0 names the newest, every rank fetches and checks it, and if it is damaged for one
rank all take the one before. Implements `train.loop.interfaces.Checkpoints`; knows no Ray, which only announces a
preemption.
"""

import logging
import math
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from cluster.expected import first_line
from train.checkpoints.async_writer import (
    PATIENCE_S,
    CheckpointWriter,
    StoreUnavailableError,
    Write,
)
from train.checkpoints.state import CheckpointError
from train.checkpoints.store import CheckpointStore, DamagedError, Mark, Retention, folder_name
from train.checkpoints.temp_folders import scratch

LOOK_S = 2.0
"""Seconds between two joint checks for a preemption."""
PAUSE_S = 1.0
FOREVER = timedelta(days=30)
"""Timeout of the writers' process group: a store may be down for long, and a dead rank is noticed without it."""

logger = logging.getLogger(__name__)


def _gloo(timeout: timedelta | None = None) -> dist.ProcessGroup:
    """Create a group of all ranks, on the CPU."""
    group = dist.new_group(backend="gloo", timeout=timeout)
    assert isinstance(group, dist.ProcessGroup)
    return group


class RunCheckpoints:
    """Created once an attempt, on all ranks together."""

    def __init__(
        self,
        store: CheckpointStore,
        retention: Retention,
        *,
        leaves: Callable[[], bool] = lambda: False,
        patience_s: float = PATIENCE_S,
    ) -> None:
        """Args:
        leaves: whether the machine is about to be preempted; all ranks call it together.
        patience_s: seconds to wait for a store that does not answer, at the start and at the end.
        """
        self.store = store
        self.leaves = leaves
        self.patience_s = patience_s
        self.current: str | None = None
        """The checkpoint that the run resumed from, or the last one after `flush`."""
        self._control = _gloo()
        background = _gloo(timeout=FOREVER)
        self.attempt: str = self.from_rank_0(secrets.token_hex(4))
        self.writer = CheckpointWriter(store, background, self.attempt, retention)
        self._steps, self._next_look, self._looked_at = 0, 1, time.monotonic()
        self._leaving = False

    @contextmanager
    def newest(self) -> Iterator[Path | None]:
        """Yield the newest whole checkpoint, see `train.loop.interfaces.Checkpoints`.

        Raises:
            CheckpointError: there are checkpoints, and none of them is whole.
            StoreUnavailableError: the store does not answer.
        """
        damaged: dict[str, str] = {}
        with scratch() as parent:
            while (name := self._candidate(damaged)) is not None:
                folder = parent / name
                damages = [damage for damage in self.gathered(self._damage(name, folder)) if damage]
                if not damages:
                    self.current = name
                    yield folder
                    return
                damaged[name] = damages[0]
                if dist.get_rank() == 0:
                    logger.warning(
                        "checkpoint %s is damaged (%s): taking the one before it", name, damages[0]
                    )
            if damaged:
                newest, why = next(iter(damaged.items()))
                raise CheckpointError(
                    f"none of the {len(damaged)} checkpoints of this run is whole ({newest}: {why}): restore the "
                    "bucket, or start the run with --fresh"
                )
            yield None

    def commit(self, mark: Mark, write: Write) -> None:
        self.writer.offer(mark, write)

    def flush(self) -> None:
        self.writer.flush(self.patience_s)
        if self.writer.last is not None:
            self.current = folder_name(self.writer.last, self.attempt)

    def must_leave(self) -> bool:
        """Check every `LOOK_S`; the ranks agree on the step of the next check by the slowest one's pace."""
        self._steps += 1
        if self._steps >= self._next_look and not self._leaving:
            now = time.monotonic()
            pace_s = (now - self._looked_at) / max(1, self._steps)
            asked_2 = torch.tensor([pace_s, float(self.leaves())], dtype=torch.float64)
            dist.all_reduce(asked_2, op=dist.ReduceOp.MAX, group=self._control)
            pace_s, self._leaving = float(asked_2[0]), bool(asked_2[1])
            self._steps, self._looked_at = 0, now
            self._next_look = max(1, math.ceil(LOOK_S / max(pace_s, 1e-3)))
        return self._leaving

    def close(self) -> None:
        """End the writer's thread."""
        self.writer.stop()

    def _candidate(self, damaged: dict[str, str]) -> str | None:
        """Return the newest checkpoint not known to be damaged, as rank 0 sees it."""
        if dist.get_rank():
            return self._answer(None)
        try:
            names = self._patiently(self._committed)
        except StoreUnavailableError as error:
            return self._answer(error)
        return self._answer(next((name for name in names if name not in damaged), None))

    def _committed(self) -> list[str]:
        self.store.ready()
        return self.store.committed()

    def _answer(self, mine: Any) -> str | None:
        """Return rank 0's answer on all ranks, or raise it if it is an error."""
        answer = self.from_rank_0(mine)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _damage(self, name: str, folder: Path) -> str | None:
        """Fetch a checkpoint; return its damage, if any."""
        folder.mkdir()
        try:
            self._patiently(lambda: self._fetch(name, folder))
        except DamagedError as error:
            return str(error)
        return None

    def _fetch(self, name: str, folder: Path) -> None:
        try:
            self.store.fetch(name, folder)
        except DamagedError:
            time.sleep(PAUSE_S)
            self.store.ready()  # a server that is just starting reports objects as missing
            self.store.fetch(name, folder)

    def _patiently(self, work: Callable[[], Any]) -> Any:
        deadline = time.monotonic() + self.patience_s
        while True:
            try:
                return work()
            except OSError as error:
                if time.monotonic() + PAUSE_S > deadline:
                    raise StoreUnavailableError(
                        f"the store of checkpoints did not answer for {self.patience_s:.0f} s "
                        f"({first_line(error)}): `make status` shows whether the S3 server runs; run the same "
                        "command again to go on"
                    ) from error
            time.sleep(PAUSE_S)

    def gathered(self, mine: Any) -> list[Any]:
        """Gather each rank's value on all of them."""
        values: list[Any] = [None] * dist.get_world_size(self._control)
        dist.all_gather_object(values, mine, group=self._control)
        return values

    def from_rank_0(self, mine: Any) -> Any:
        """Broadcast rank 0's value to all ranks."""
        box = [mine]
        dist.broadcast_object_list(box, src=0, group=self._control)
        return box[0]
