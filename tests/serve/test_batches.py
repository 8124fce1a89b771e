"""Who is asked about with whom, and who is not held up by whom."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import pytest

from serve.batches import Batches


class Slow:
    """Answers a batch when it is told to."""

    def __init__(self) -> None:
        self.asked: list[list[int]] = []
        self.gates: list[asyncio.Event] = []

    async def ask(self, items: Sequence[int]) -> Sequence[int]:
        gate = asyncio.Event()
        self.asked.append(list(items))
        self.gates.append(gate)
        await gate.wait()
        return [10 * one for one in items]


def run(work: Callable[[Slow], Coroutine[Any, Any, None]]) -> None:
    async def within() -> None:
        await asyncio.wait_for(work(Slow()), 10)

    asyncio.run(within())


def batches(slow: Slow, *, most: int = 3, slots: int = 1, late_s: float = 60.0) -> Batches[int, int]:
    return Batches(slow.ask, most=most, slots=lambda: slots, late_s=late_s)


async def soon() -> None:
    """Until all that is ready has run."""
    for _ in range(5):
        await asyncio.sleep(0)


def test_one_alone_waits_for_nobody_and_who_comes_meanwhile_goes_together() -> None:
    async def work(slow: Slow) -> None:
        ours = batches(slow)
        first = asyncio.create_task(ours.one(1))
        await soon()
        rest = [asyncio.create_task(ours.one(nth)) for nth in range(2, 7)]
        await soon()
        assert slow.asked == [[1]]
        for nth in range(3):
            slow.gates[nth].set()
            await soon()
        assert slow.asked == [[1], [2, 3, 4], [5, 6]], "no batch is larger than three"
        assert [await one for one in (first, *rest)] == [10, 20, 30, 40, 50, 60]

    run(work)


def test_who_comes_at_the_same_time_goes_together_and_a_second_slot_is_used() -> None:
    async def work(slow: Slow) -> None:
        ours = batches(slow, slots=2)
        asked = [asyncio.create_task(ours.one(nth)) for nth in range(7)]
        await soon()
        assert slow.asked == [[0, 1, 2], [3, 4, 5]]
        slow.gates[1].set()
        await soon()
        assert slow.asked[2] == [6], "the slot that is free first is used first"
        for gate in slow.gates:
            gate.set()
        assert await asyncio.gather(*asked) == [10 * nth for nth in range(7)]

    run(work)


def test_who_gave_up_is_not_asked_about() -> None:
    async def work(slow: Slow) -> None:
        ours = batches(slow)
        first, gone, last = (asyncio.create_task(ours.one(nth)) for nth in (1, 2, 3))
        await soon()
        assert slow.asked == [[1, 2, 3]]
        waiting = [asyncio.create_task(ours.one(nth)) for nth in (4, 5)]
        await soon()
        gone.cancel()  # its batch is under way: the others are answered all the same
        waiting[0].cancel()
        slow.gates[0].set()
        await soon()
        assert slow.asked[1] == [5]
        slow.gates[1].set()
        assert [await first, await last, await waiting[1]] == [10, 30, 50]

    run(work)


def test_a_batch_that_hangs_gives_its_slot_to_the_next() -> None:
    async def work(slow: Slow) -> None:
        ours = batches(slow, late_s=0.05)
        hangs = asyncio.create_task(ours.one(1))
        await soon()
        second = asyncio.create_task(ours.one(2))
        await soon()
        assert slow.asked == [[1]]
        while len(slow.asked) < 2:
            await asyncio.sleep(0.01)
        slow.gates[1].set()
        assert await second == 20
        slow.gates[0].set()
        assert await hangs == 10, "it is answered, though late"

    run(work)


def test_an_error_is_everybodys_and_the_slot_is_free_again() -> None:
    async def broken(items: Sequence[int]) -> Sequence[int]:
        if len(items) == 2:
            return [1]  # one answer too few
        raise OSError("away")

    async def work(_: Slow) -> None:
        ours: Batches[int, int] = Batches(broken, most=3, slots=lambda: 0, late_s=1.0)
        found = await asyncio.gather(ours.one(1), ours.one(2), return_exceptions=True)
        assert [str(one) for one in found] == ["1 answers for 2 items"] * 2
        with pytest.raises(OSError, match="away"):
            await ours.one(3)

    run(work)


def test_a_loop_that_ends_leaves_nobody_waiting() -> None:
    async def work(slow: Slow) -> None:
        ours = batches(slow)
        asked = asyncio.create_task(ours.one(1))
        await soon()
        for task in ours._under_way:
            task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked

    run(work)


@pytest.mark.parametrize("wrong", [{"most": 0}, {"late_s": 0.0}])
def test_impossible_sizes_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="at least one item and a positive time"):
        batches(Slow(), **wrong)
