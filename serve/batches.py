"""Micro-batches by back-pressure: who comes alone to an idle process goes at once, others wait and go together.

A busy version is sent batches as large as its queue has become: a process has one batch, and a second one at hand when
somebody has waited a while. An idle one waits for company only if the one before came just now, so that more are to be
expected. Who gave up meanwhile is left out. Why not `ray.serve.batch`: docs/decisions/0024.
"""

import asyncio
import math
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
        processes: Callable[[], int],
        company_s: float,
        gather_s: float,
        late_s: float,
    ) -> None:
        """Args:
        ask: answers a batch, one for each, in order; should it raise, all who wait for this batch get the error.
        most: items in a batch.
        processes: how many answer, looked at anew each time; so many batches go at once.
        company_s: how long one waits for more where the one before came no longer ago than that.
        gather_s: how long one waits at least before a process gets its second batch.
        late_s: after which a batch no longer holds its place: one that hangs must not hold up the others.
        """
        if most < 1 or min(company_s, gather_s, late_s) <= 0:
            raise ValueError("a batch has at least one item and positive times")
        self._ask, self._most, self._processes = ask, most, processes
        self._company_s, self._gather_s, self._late_s = company_s, gather_s, late_s
        self._waiting: deque[tuple[Item, asyncio.Future[Said], float]] = deque()
        """With the loop's time of their coming."""
        self._holding: set[asyncio.Task[None]] = set()
        """Batches that keep a process busy."""
        self._under_way: set[asyncio.Task[None]] = set()
        self._will_send = False
        self._gathered: asyncio.TimerHandle | None = None
        self._came_s, self._company = -math.inf, False

    async def one(self, item: Item) -> Said:
        """What `ask` says of one item."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Said] = loop.create_future()
        now_s = loop.time()
        self._company, self._came_s = now_s - self._came_s < self._company_s, now_s
        self._waiting.append((item, future, now_s))
        if not self._will_send:  # after those that are ready to run, so that who comes together goes together
            self._will_send = True
            loop.call_soon(self._send)
        return await future

    def _send(self) -> None:
        self._will_send = False
        if self._gathered is not None:
            self._gathered.cancel()
            self._gathered = None
        loop, processes = asyncio.get_running_loop(), max(1, self._processes())
        while self._drop_those_who_gave_up() and len(self._holding) < 2 * processes:
            busy = len(self._holding) >= processes
            wait_s = self._gather_s if busy else self._company_s if self._company else 0.0
            gathered_s = self._waiting[0][2] + wait_s
            if loop.time() < gathered_s and len(self._waiting) < self._most:
                self._gathered = loop.call_at(gathered_s, self._send)
                break
            group: list[tuple[Item, asyncio.Future[Said]]] = []
            while len(group) < self._most and self._drop_those_who_gave_up():
                item, future, _ = self._waiting.popleft()
                group.append((item, future))
            self._start(group)

    def _drop_those_who_gave_up(self) -> bool:
        """Up to the first who has not; whether there is one."""
        while self._waiting and self._waiting[0][1].done():
            self._waiting.popleft()
        return bool(self._waiting)

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
