"""Holds a trial's workers at the end of each epoch until Ray Tune has decided whether the trial goes on.

An actor of the sweep that takes no processor. Workers report an epoch with `tell` and wait; the trial's driver takes
its rows with `next` and asks for another one only after Tune has decided, which releases the workers. A decision takes
effect at the end of the epoch that it is about, so no worker is killed for it and nothing that was learned is lost.
"""

import asyncio
from collections import deque
from dataclasses import dataclass, field
from typing import Any

Event = dict[str, Any]
"""A row of an epoch with `attempt` and `cpu_s`, or, as the last one, how the trial ended (`ending`)."""


@dataclass
class TrialChannel:
    """The events between one trial's driver and its workers."""

    epoch: int
    """The last one that the driver knows of."""
    events: deque[Event] = field(default_factory=deque)
    awaited: bool = False
    """Whether the driver waits for an event."""
    leaves: bool = False


class EpochGate:
    def __init__(self) -> None:
        self._channels: dict[str, TrialChannel] = {}
        self._moved = asyncio.Condition()
        self._closed = False

    async def open(self, key: str, epoch: int) -> None:
        """Register a trial's driver, which needs the rows of epochs after this one."""
        self._channels[key] = TrialChannel(epoch=epoch)

    async def tell(self, key: str, attempt: str, cpu_s: float, history: list[dict[str, float]]) -> bool:
        """Report what the workers of a trial have reached; returns whether they go on."""
        channel = self._channels[key]
        async with self._moved:
            rows = [row for row in history if row["epoch"] > channel.epoch]
            channel.epoch = max(channel.epoch, int(history[-1]["epoch"]))
            channel.events.extend({**row, "row": row, "attempt": attempt, "cpu_s": cpu_s} for row in rows)
            self._moved.notify_all()
            await self._moved.wait_for(
                lambda: channel.leaves or self._closed or (channel.awaited and not channel.events)
            )
            return not (channel.leaves or self._closed)

    async def next(self, key: str) -> Event:
        """Wait for the next event; asking for it releases the workers from the last one."""
        channel = self._channels[key]
        async with self._moved:
            channel.awaited = True
            self._moved.notify_all()
            await self._moved.wait_for(lambda: bool(channel.events))
            channel.awaited = False
            return channel.events.popleft()

    async def end(self, key: str, ending: Event) -> None:
        """Add the last event of a trial."""
        async with self._moved:
            self._channels[key].events.append(ending)
            self._moved.notify_all()

    async def leave(self, key: str) -> None:
        """End the workers of this trial with their epoch."""
        async with self._moved:
            self._channels[key].leaves = True
            self._moved.notify_all()

    async def close(self) -> None:
        """End the workers of all trials with their epoch."""
        async with self._moved:
            self._closed = True
            self._moved.notify_all()
