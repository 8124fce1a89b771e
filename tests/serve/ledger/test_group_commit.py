import asyncio

import pytest

from serve.ledger.group_commit import GroupCommit


class Rounds:
    """Work that notes its groups; a word in capitals is an error of its own."""

    def __init__(self) -> None:
        self.groups: list[list[str]] = []

    async def work(self, words: list[str]) -> list[str | Exception]:
        self.groups.append(words)
        await asyncio.sleep(0.01)
        return [ValueError(word) if word.isupper() else word * 2 for word in words]


def test_whoever_comes_while_a_round_is_under_way_goes_with_the_next() -> None:
    async def scenario() -> list[list[str]]:
        rounds = Rounds()
        grouped = GroupCommit(rounds.work, max_group=3)
        first = asyncio.create_task(grouped.submit("a"))
        await asyncio.sleep(0.005)
        later = [asyncio.create_task(grouped.submit(word)) for word in "bcde"]
        assert await asyncio.gather(first, *later) == ["aa", "bb", "cc", "dd", "ee"]
        return rounds.groups

    assert asyncio.run(scenario()) == [["a"], ["b", "c", "d"], ["e"]]


def test_an_error_is_told_to_the_caller_that_it_is_of() -> None:
    async def scenario() -> list[object]:
        grouped = GroupCommit(Rounds().work, max_group=8)
        return list(await asyncio.gather(*(grouped.submit(word) for word in "aBc"), return_exceptions=True))

    first, second, third = asyncio.run(scenario())
    assert (first, third) == ("aa", "cc")
    assert isinstance(second, ValueError)


def test_an_error_of_the_whole_round_is_told_to_all_of_it_and_the_next_round_goes_on() -> None:
    async def scenario() -> None:
        failing = True

        async def work(words: list[str]) -> list[str]:
            if failing:
                raise ConnectionError("gone")
            return words

        grouped = GroupCommit(work, max_group=8)
        outcomes = await asyncio.gather(grouped.submit("a"), grouped.submit("b"), return_exceptions=True)
        assert [type(one) for one in outcomes] == [ConnectionError, ConnectionError]
        failing = False
        assert await grouped.submit("c") == "c"

    asyncio.run(scenario())


def test_the_item_of_a_caller_that_leaves_is_carried_out_and_the_others_are_answered() -> None:
    async def scenario() -> list[list[str]]:
        rounds = Rounds()
        grouped = GroupCommit(rounds.work, max_group=8)
        leaving, staying = (asyncio.create_task(grouped.submit(word)) for word in "ab")
        await asyncio.sleep(0.005)
        leaving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaving
        assert await staying == "bb"
        return rounds.groups

    assert asyncio.run(scenario()) == [["a", "b"]]
