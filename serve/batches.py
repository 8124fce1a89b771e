"""Micro-batches by back-pressure: who finds a free slot goes at once, who does not waits and goes with the others.

So an idle version answers without waiting for company, and a busy one is sent batches as large as its queue has become.
Who gave up meanwhile is left out. Why not `ray.serve.batch`: docs/decisions/0024.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

Item = TypeVar("Item")
Said = TypeVar("Said")


class Batches(Generic[Item, Said]):
    """Groups single calls of one event loop."""

    def __init__(
        self,
        ask: Callable[[Sequence[Item]], Awaitable[Sequence[Said]]],
        *,
        most: int,
        slots: Callable[[], int],
        late_s: float,
    ) -> None:
        """Args:
        ask: answers a batch, one for each, in order; should it raise, all who wait for this batch get the error.
        most: items in a batch.
        slots: how many batches may be under way, looked at anew each time.
        late_s: after which a batch no longer holds its slot: one that hangs must not hold up the others.
        """
        if most < 1 or late_s <= 0:
            raise ValueError("a batch has at least one item and a positive time")
        self._ask, self._most, self._slots, self._late_s = ask, most, slots, late_s
        self._waiting: deque[tuple[Item, asyncio.Future[Said]]] = deque()
        self._holding: set[asyncio.Task[None]] = set()
        """Batches that have a slot."""
        self._under_way: set[asyncio.Task[None]] = set()
        self._will_send = False

    async def one(self, item: Item) -> Said:
        """What `ask` says of one item."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Said] = loop.create_future()
        self._waiting.append((item, future))
        if not self._will_send:  # after those that are ready to run, so that who comes together goes together
            self._will_send = True
            loop.call_soon(self._send)
        return await future

    def _send(self) -> None:
        self._will_send = False
        while self._waiting and len(self._holding) < max(1, self._slots()):
            group: list[tuple[Item, asyncio.Future[Said]]] = []
            while self._waiting and len(group) < self._most:
                item, future = self._waiting.popleft()
                if not future.done():
                    group.append((item, future))
            if group:
                self._start(group)

    def _start(self, group: list[tuple[Item, "asyncio.Future[Said]"]]) -> None:
        loop = asyncio.get_running_loop()
        task = loop.create_task(self._carry(group))
        self._under_way.add(task)
        self._holding.add(task)
        late = loop.call_later(self._late_s, self._freed, task)

        def ended(task: "asyncio.Task[None]") -> None:
            late.cancel()
            self._under_way.discard(task)
            self._freed(task)

        task.add_done_callback(ended)

    def _freed(self, task: "asyncio.Task[None]") -> None:
        self._holding.discard(task)
        self._send()

    async def _carry(self, group: list[tuple[Item, "asyncio.Future[Said]"]]) -> None:
        waiting = [future for _, future in group]
        try:
            answers = await self._ask([item for item, _ in group])
            if len(answers) != len(group):
                raise ValueError(f"{len(answers)} answers for {len(group)} items")
        except asyncio.CancelledError:
            for future in waiting:
                future.cancel()
            raise
        except Exception as error:  # noqa: BLE001 - given to each caller, never dropped
            for future in waiting:
                if not future.done():
                    future.set_exception(error)
            return
        for future, answer in zip(waiting, answers, strict=True):
            if not future.done():
                future.set_result(answer)
