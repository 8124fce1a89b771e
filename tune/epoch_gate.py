"""Between a trial's workers and Tune: who has finished an epoch asks here whether to go on, and waits for the answer.

An actor of the sweep, without a processor of its own. Workers `tell`, the trial's driver takes rows with `next`, and
asks for no further one before Tune has decided; that lets the workers go on. So a decision takes effect at the end of
the epoch that it is about, no worker is ever killed for it, and nothing that was learned is lost.
"""

import asyncio
from collections import deque
from dataclasses import dataclass, field
from typing import Any

Event = dict[str, Any]
"""A row of an epoch with `attempt` and `cpu_s`, or, as the last one, how the trial ended (`ending`)."""


@dataclass
class Line:
    """One trial's driver and its workers."""

    epoch: int
    """The last one that the driver knows of."""
    events: deque[Event] = field(default_factory=deque)
    asked: bool = False
    """Whether the driver waits for an event."""
    leaves: bool = False


class Desk:
    def __init__(self) -> None:
        self._lines: dict[str, Line] = {}
        self._moved = asyncio.Condition()
        self._closed = False

    async def open(self, key: str, epoch: int) -> None:
        """A trial's driver begins; rows of later epochs than this one are news to it."""
        self._lines[key] = Line(epoch=epoch)

    async def tell(self, key: str, attempt: str, cpu_s: float, history: list[dict[str, float]]) -> bool:
        """What the workers of a trial have reached; whether they go on."""
        line = self._lines[key]
        async with self._moved:
            rows = [row for row in history if row["epoch"] > line.epoch]
            line.epoch = max(line.epoch, int(history[-1]["epoch"]))
            line.events.extend({**row, "row": row, "attempt": attempt, "cpu_s": cpu_s} for row in rows)
            self._moved.notify_all()
            await self._moved.wait_for(
                lambda: line.leaves or self._closed or (line.asked and not line.events)
            )
            return not (line.leaves or self._closed)

    async def next(self, key: str) -> Event:
        """The next event; asking for it says that the workers may go on from the last one."""
        line = self._lines[key]
        async with self._moved:
            line.asked = True
            self._moved.notify_all()
            await self._moved.wait_for(lambda: bool(line.events))
            line.asked = False
            return line.events.popleft()

    async def end(self, key: str, ending: Event) -> None:
        """The last event of a trial's driver."""
        async with self._moved:
            self._lines[key].events.append(ending)
            self._moved.notify_all()

    async def leave(self, key: str) -> None:
        """The workers of this trial end with their epoch."""
        async with self._moved:
            self._lines[key].leaves = True
            self._moved.notify_all()

    async def close(self) -> None:
        """The workers of all trials end with their epoch."""
        async with self._moved:
            self._closed = True
            self._moved.notify_all()
