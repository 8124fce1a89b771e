"""Group commit: items that arrive while a round is under way are processed together in the next one.

Used for commits, fsyncs and look-ups. No item waits for a timer: a round takes all that have arrived.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

Item = TypeVar("Item")
Answer = TypeVar("Answer")


class GroupCommit(Generic[Item, Answer]):
    """One round at a time, each of up to `max_group` items, in order of arrival."""

    def __init__(
        self, work: Callable[[list[Item]], Awaitable[Sequence[Answer | Exception]]], *, max_group: int
    ) -> None:
        """Args:
        work: returns one answer an item, in order; an exception in an item's place is raised to that caller
            alone, one that `work` raises to all callers of the round.
        """
        self.work = work
        self.max_group = max_group
        self._waiting: list[tuple[Item, asyncio.Future[Answer]]] = []
        self._rounds: asyncio.Task[None] | None = None

    async def submit(self, item: Item) -> Answer:
        """Process one item and return its answer; a cancelled caller's item is processed all the same."""
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        if self._rounds is None:
            self._rounds = asyncio.create_task(self._run_rounds())
        return await future

    async def _run_rounds(self) -> None:
        try:
            while self._waiting:
                group, self._waiting = self._waiting[: self.max_group], self._waiting[self.max_group :]
                await self._run_round(group)
        finally:
            self._rounds = None

    async def _run_round(self, group: list[tuple[Item, asyncio.Future[Answer]]]) -> None:
        answers: Sequence[Answer | Exception]
        try:
            answers = await self.work([item for item, _ in group])
        except Exception as error:  # noqa: BLE001 - raised to each caller, never dropped
            answers = [error] * len(group)
        for (_, future), answer in zip(group, answers, strict=True):
            if future.done():  # its caller was cancelled
                continue
            if isinstance(answer, Exception):
                future.set_exception(answer)
            else:
                future.set_result(answer)
