"""Micro-batches by back-pressure: a lone request to an idle process goes at once, others wait and go together.

Batches grow with the queue of a busy version: a process has one batch, and a second one at hand when items have
waited a while. An idle process waits for more items only if the last one came a moment ago. Cancelled items are left
out. `ray.serve.batch` waits a fixed time and knows no back-pressure: docs/decisions/0024.
"""

import asyncio
import math
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

Item = TypeVar("Item")
Answer = TypeVar("Answer")


class Batcher(Generic[Item, Answer]):
    """Groups single calls of one event loop into batches."""

    def __init__(
        self,
        ask: Callable[[Sequence[Item]], Awaitable[Sequence[Answer]]],
        *,
        max_batch_size: int,
        processes: Callable[[], int],
        batch_wait_s: float,
        second_batch_wait_s: float,
        stall_timeout_s: float,
    ) -> None:
        """Args:
        ask: answers a batch, one answer an item, in order; its error goes to all items of the batch.
        processes: number of processes that answer, read anew each time; so many batches go at once.
        batch_wait_s: how long a batch waits for more items, if the last item came no longer ago than that.
        second_batch_wait_s: how long items wait at least before a process gets its second batch.
        stall_timeout_s: after which a batch no longer holds its place: a hanging one must not hold up others.
        """
        if max_batch_size < 1 or min(batch_wait_s, second_batch_wait_s, stall_timeout_s) <= 0:
            raise ValueError("a batch has at least one item and positive times")
        self._ask, self._max_batch_size, self._processes = ask, max_batch_size, processes
        self._batch_wait_s, self._second_batch_wait_s = batch_wait_s, second_batch_wait_s
        self._stall_timeout_s = stall_timeout_s
        self._waiting: deque[tuple[Item, asyncio.Future[Answer], float]] = deque()
        """Items with the loop's time of their arrival."""
        self._holding: set[asyncio.Task[None]] = set()
        """Batches that keep a process busy."""
        self._under_way: set[asyncio.Task[None]] = set()
        self._send_scheduled = False
        self._timer: asyncio.TimerHandle | None = None
        self._last_arrival_s, self._wait_for_more = -math.inf, False

    async def submit(self, item: Item) -> Answer:
        """Answer one item, as part of a batch."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Answer] = loop.create_future()
        now_s = loop.time()
        self._wait_for_more, self._last_arrival_s = now_s - self._last_arrival_s < self._batch_wait_s, now_s
        self._waiting.append((item, future, now_s))
        if not self._send_scheduled:
            self._send_scheduled = True
            loop.call_soon(self._send)  # after the tasks that are ready: simultaneous items share a batch
        return await future

    def _send(self) -> None:
        self._send_scheduled = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        loop, processes = asyncio.get_running_loop(), max(1, self._processes())
        while self._drop_cancelled() and len(self._holding) < 2 * processes:
            busy = len(self._holding) >= processes
            wait_s = self._second_batch_wait_s if busy else self._batch_wait_s if self._wait_for_more else 0.0
            gathered_s = self._waiting[0][2] + wait_s
            if loop.time() < gathered_s and len(self._waiting) < self._max_batch_size:
                self._timer = loop.call_at(gathered_s, self._send)
                break
            group: list[tuple[Item, asyncio.Future[Answer]]] = []
            while len(group) < self._max_batch_size and self._drop_cancelled():
                item, future, _ = self._waiting.popleft()
                group.append((item, future))
            self._start(group)

    def _drop_cancelled(self) -> bool:
        """Remove cancelled items from the head of the queue. Returns True if an item is left."""
        while self._waiting and self._waiting[0][1].done():
            self._waiting.popleft()
        return bool(self._waiting)

    def _start(self, group: list[tuple[Item, "asyncio.Future[Answer]"]]) -> None:
        loop = asyncio.get_running_loop()
        task = loop.create_task(self._answer(group))
        self._under_way.add(task)
        self._holding.add(task)
        late = loop.call_later(self._stall_timeout_s, self._release, task)

        def ended(task: "asyncio.Task[None]") -> None:
            late.cancel()
            self._under_way.discard(task)
            self._release(task)

        task.add_done_callback(ended)

    def _release(self, task: "asyncio.Task[None]") -> None:
        self._holding.discard(task)
        self._send()

    async def _answer(self, group: list[tuple[Item, "asyncio.Future[Answer]"]]) -> None:
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
