"""Who is asked about with whom, and who is not held up by whom."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import pytest

from serve.front_door.batching import Batcher


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


AT_ONCE_S, NEVER_S = 1e-9, 60.0


def batches(
    slow: Slow,
    *,
    max_batch_size: int = 3,
    processes: int = 1,
    batch_wait_s: float = AT_ONCE_S,
    second_batch_wait_s: float = NEVER_S,
    stall_timeout_s: float = NEVER_S,
) -> Batcher[int, int]:
    return Batcher(
        slow.ask,
        max_batch_size=max_batch_size,
        processes=lambda: processes,
        batch_wait_s=batch_wait_s,
        second_batch_wait_s=second_batch_wait_s,
        stall_timeout_s=stall_timeout_s,
    )


async def soon() -> None:
    """Until all that is ready has run."""
    for _ in range(5):
        await asyncio.sleep(0)


def test_one_alone_waits_for_nobody_and_who_comes_meanwhile_goes_together() -> None:
    async def work(slow: Slow) -> None:
        ours = batches(slow)
        first = asyncio.create_task(ours.submit(1))
        await soon()
        rest = [asyncio.create_task(ours.submit(nth)) for nth in (2, 3)]
        await soon()
        assert slow.asked == [[1]]
        rest += [asyncio.create_task(ours.submit(nth)) for nth in range(4, 10)]
        await soon()
        assert slow.asked == [[1], [2, 3, 4]], "a full one is put at hand at once, and no third"
        for nth in range(4):
            slow.gates[nth].set()
            await soon()
        assert slow.asked[2:] == [[5, 6, 7], [8, 9]]
        assert await asyncio.gather(first, *rest) == [10 * nth for nth in range(1, 10)]

    run(work)


def test_who_comes_at_the_same_time_goes_together_and_a_second_process_is_used() -> None:
    async def work(slow: Slow) -> None:
        ours = batches(slow, processes=2)
        asked = [asyncio.create_task(ours.submit(nth)) for nth in range(7)]
        await soon()
        assert slow.asked == [[0, 1, 2], [3, 4, 5]]
        slow.gates[1].set()
        await soon()
        assert slow.asked[2] == [6], "who is free first is used first"
        for gate in slow.gates:
            gate.set()
        assert await asyncio.gather(*asked) == [10 * nth for nth in range(7)]

    run(work)


def test_an_idle_process_waits_for_company_where_the_one_before_came_just_now() -> None:
    async def work(slow: Slow) -> None:
        ours = batches(slow, max_batch_size=4, processes=9, batch_wait_s=0.1)
        asked = [asyncio.create_task(ours.submit(1))]
        await soon()
        assert slow.asked == [[1]], "nobody else is to be expected"
        for nth in (2, 3):
            asked.append(asyncio.create_task(ours.submit(nth)))
            await soon()
        assert slow.asked == [[1]]
        while len(slow.asked) < 2:
            await asyncio.sleep(0.01)
        assert slow.asked[1] == [2, 3]
        asked += [asyncio.create_task(ours.submit(nth)) for nth in (4, 5, 6, 7)]
        await soon()
        assert slow.asked[2] == [4, 5, 6, 7], "a full one waits for nobody"
        await asyncio.sleep(0.15)
        asked.append(asyncio.create_task(ours.submit(8)))
        await soon()
        assert slow.asked[3] == [8]
        for gate in slow.gates:
            gate.set()
        assert await asyncio.gather(*asked) == [10 * nth for nth in range(1, 9)]

    run(work)


def test_who_gave_up_is_not_asked_about() -> None:
    async def work(slow: Slow) -> None:
        ours = batches(slow)
        first, gone, last = (asyncio.create_task(ours.submit(nth)) for nth in (1, 2, 3))
        await soon()
        assert slow.asked == [[1, 2, 3]]
        waiting = [asyncio.create_task(ours.submit(nth)) for nth in (4, 5)]
        await soon()
        gone.cancel()  # its batch is under way: the others are answered all the same
        waiting[0].cancel()
        slow.gates[0].set()
        await soon()
        assert slow.asked[1] == [5]
        slow.gates[1].set()
        assert [await first, await last, await waiting[1]] == [10, 30, 50]

    run(work)


def test_a_batch_that_hangs_makes_room_for_the_next() -> None:
    async def work(slow: Slow) -> None:
        ours = batches(slow, stall_timeout_s=0.05)
        hangs = asyncio.create_task(ours.submit(1))
        await soon()
        second = asyncio.create_task(ours.submit(2))
        await soon()
        assert slow.asked == [[1]]
        while len(slow.asked) < 2:
            await asyncio.sleep(0.01)
        slow.gates[1].set()
        assert await second == 20
        slow.gates[0].set()
        assert await hangs == 10, "it is answered, though late"

    run(work)


def test_a_busy_process_gets_a_second_batch_when_somebody_has_waited_and_no_third() -> None:
    async def work(slow: Slow) -> None:
        ours = batches(slow, second_batch_wait_s=0.05)
        asked = [asyncio.create_task(ours.submit(1))]
        await soon()
        for nth in (2, 3):
            asked.append(asyncio.create_task(ours.submit(nth)))
            await soon()
        assert slow.asked == [[1]], "they wait for company"
        while len(slow.asked) < 2:
            await asyncio.sleep(0.01)
        assert slow.asked[1] == [2, 3]
        asked.append(asyncio.create_task(ours.submit(4)))
        await asyncio.sleep(0.15)
        assert len(slow.asked) == 2, "one at work and one at hand"
        slow.gates[0].set()
        await soon()
        assert slow.asked[2] == [4]
        for gate in slow.gates:
            gate.set()
        assert await asyncio.gather(*asked) == [10, 20, 30, 40]

    run(work)


def test_an_error_is_everybodys_and_the_next_is_asked() -> None:
    async def broken(items: Sequence[int]) -> Sequence[int]:
        if len(items) == 2:
            return [1]  # one answer too few
        raise OSError("away")

    async def work(_: Slow) -> None:
        ours: Batcher[int, int] = Batcher(
            broken,
            max_batch_size=3,
            processes=lambda: 0,
            batch_wait_s=AT_ONCE_S,
            second_batch_wait_s=1.0,
            stall_timeout_s=1.0,
        )
        found = await asyncio.gather(ours.submit(1), ours.submit(2), return_exceptions=True)
        assert [str(one) for one in found] == ["1 answers for 2 items"] * 2
        with pytest.raises(OSError, match="away"):
            await ours.submit(3)

    run(work)


def test_a_loop_that_ends_leaves_nobody_waiting() -> None:
    async def work(slow: Slow) -> None:
        ours = batches(slow)
        asked = asyncio.create_task(ours.submit(1))
        await soon()
        for task in ours._under_way:
            task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked

    run(work)


@pytest.mark.parametrize(
    "wrong",
    [{"max_batch_size": 0}, {"stall_timeout_s": 0.0}, {"second_batch_wait_s": 0.0}, {"batch_wait_s": 0.0}],
)
def test_impossible_sizes_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="at least one item and positive times"):
        batches(Slow(), **wrong)
