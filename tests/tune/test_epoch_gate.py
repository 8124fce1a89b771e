"""The gate as plain asyncio: Ray only carries the calls."""

import asyncio
from collections.abc import Coroutine
from typing import Any

from tune.epoch_gate import EpochGate

ROWS = [{"epoch": epoch, "loss": 1 / epoch} for epoch in (1, 2, 3)]


def run(scenario: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(scenario, 5))


async def waits(task: "asyncio.Task[Any]") -> bool:
    for _ in range(5):
        await asyncio.sleep(0)
    return not task.done()


def test_workers_go_on_only_when_the_driver_asks_for_the_next_row() -> None:
    async def scenario() -> None:
        gate = EpochGate()
        await gate.open("a", 0)
        told = asyncio.create_task(gate.tell("a", "x", 1.5, ROWS[:1]))
        row = await gate.next("a")
        assert (row["epoch"], row["row"], row["attempt"], row["cpu_s"]) == (1, ROWS[0], "x", 1.5)
        assert await waits(told)
        following = asyncio.create_task(gate.next("a"))
        assert await told is True
        await gate.end("a", {"ending": "complete"})
        assert await following == {"ending": "complete"}

    run(scenario())


def test_who_is_to_leave_is_told_so_and_so_is_everybody_when_the_desk_closes() -> None:
    async def scenario() -> None:
        gate = EpochGate()
        for key in "ab":
            await gate.open(key, 0)
        tasks = {key: asyncio.create_task(gate.tell(key, "x", 1, ROWS[:1])) for key in "ab"}
        await gate.leave("a")
        assert await tasks["a"] is False
        assert await waits(tasks["b"])
        await gate.close()
        assert await tasks["b"] is False

    run(scenario())


def test_a_driver_that_knows_epochs_hears_only_of_later_ones_and_one_that_knows_none_of_all() -> None:
    async def scenario() -> None:
        gate = EpochGate()
        await gate.open("old", 2)
        await gate.open("new", 0)
        for key in ("old", "new"):
            task = asyncio.create_task(gate.tell(key, "x", 1, ROWS))
            assert await waits(task)
            expected = [3] if key == "old" else [1, 2, 3]
            assert [(await gate.next(key))["epoch"] for _ in expected] == expected
            assert await waits(task)
            await gate.leave(key)
            assert await task is False

    run(scenario())


def test_an_attempt_that_died_while_it_waited_is_in_nobody_s_way() -> None:
    async def scenario() -> None:
        gate = EpochGate()
        await gate.open("a", 0)
        dead = asyncio.create_task(gate.tell("a", "x", 1, ROWS[:1]))
        assert (await gate.next("a"))["attempt"] == "x"
        dead.cancel()
        again = asyncio.create_task(gate.tell("a", "y", 2, ROWS[:1]))
        assert await waits(again)
        following = asyncio.create_task(gate.next("a"))
        assert await again is True
        last = asyncio.create_task(gate.tell("a", "y", 3, ROWS[:2]))
        assert ((await following)["epoch"], last.done()) == (2, False)
        last.cancel()

    run(scenario())
