"""Carry out together what arrives while the round before is under way: group commit, group fsync, group look-up.

Nobody waits for a timer: a round takes whoever has come by then. Knows nothing of what is carried out.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

Item = TypeVar("Item")
Answer = TypeVar("Answer")


class Grouped(Generic[Item, Answer]):
    """One round at a time, each of up to `most` items, in the order in which they came."""

    def __init__(
        self, work: Callable[[list[Item]], Awaitable[Sequence[Answer | Exception]]], *, most: int
    ) -> None:
        """Args:
        work: one answer an item, in order; an exception in an item's place is raised to that caller alone, one
            that `work` raises to all callers of the round.
        """
        self.work = work
        self.most = most
        self._waiting: list[tuple[Item, asyncio.Future[Answer]]] = []
        self._rounds: asyncio.Task[None] | None = None

    async def ask(self, item: Item) -> Answer:
        """The answer to one item. A caller that is cancelled takes nothing back: its item is carried out."""
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        if self._rounds is None:
            self._rounds = asyncio.create_task(self._go_round())
        return await future

    async def _go_round(self) -> None:
        try:
            while self._waiting:
                group, self._waiting = self._waiting[: self.most], self._waiting[self.most :]
                await self._carry_out(group)
        finally:
            self._rounds = None

    async def _carry_out(self, group: list[tuple[Item, asyncio.Future[Answer]]]) -> None:
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
