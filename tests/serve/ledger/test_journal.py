"""The journal on a real disk: what a killed process leaves, what a torn write leaves, and a disk that is full."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path
from uuid import UUID

import pytest

from serve.ledger.journal import Journal, JournalError
from serve.ledger.journal_entry import Entry
from tests.serve.ledger.journals import KEY, entry, with_journal

CHILD = """
import asyncio, sys, time
from pathlib import Path
from uuid import UUID
from serve.ledger.journal import Journal
from serve.ledger.journal_entry import Entry

async def main():
    journal = Journal(Path(sys.argv[1]), b"k" * 32)
    await journal.open()
    for number in range(int(sys.argv[2])):
        await journal.append(Entry(kind="prediction", id=UUID(int=number), row={"n": number}, image=b"png"))
    print("kept", flush=True)
    time.sleep(600)

asyncio.run(main())
"""
FULL_DISK = """
import asyncio, resource, sys
from pathlib import Path
from uuid import UUID
from serve.ledger.journal import Journal, JournalError
from serve.ledger.journal_entry import Entry

def entry(number, size):
    return Entry(kind="prediction", id=UUID(int=number), row={"n": number}, image=bytes(size))

async def main():
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
    journal = Journal(Path(sys.argv[1]), b"k" * 32)
    await journal.open()
    await journal.append(entry(1, 60_000))
    try:
        await journal.append(entry(2, 60_000))
    except JournalError as error:
        print("refused:", error)
    await journal.append(entry(3, 60_000))
    print(journal.trouble or "well")
    await journal.close()

asyncio.run(main())
"""


async def left(journal: Journal) -> list[Entry]:
    """Everything that can be taken up, in order."""
    segments = await journal.take_up(own=True)
    return [one for segment in segments async for batch in journal.batches(segment) for one in batch]


def test_what_one_front_door_leaves_the_next_takes_up_once(tmp_path: Path) -> None:
    async def write(journal: Journal) -> None:
        assert await asyncio.gather(*(journal.append(entry(number)) for number in range(5))) == [None] * 5

    async def replay(journal: Journal) -> None:
        assert await left(journal) == [entry(number) for number in range(5)]
        for segment in await journal.take_up(own=True):
            await journal.replayed(segment)
        assert await left(journal) == []

    with_journal(tmp_path, write)
    with_journal(tmp_path, replay)
    assert list(tmp_path.iterdir()) == []


def test_a_killed_front_doors_file_is_taken_up_and_a_living_ones_is_not(tmp_path: Path) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(tmp_path), "3"], stdout=subprocess.PIPE, text=True, cwd=Path.cwd()
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "kept\n"

    async def use(journal: Journal) -> None:
        assert await left(journal) == []
        assert await journal.find(UUID(int=2)) == entry(2)
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        assert await left(journal) == [entry(number) for number in range(3)]
        assert journal.has(UUID(int=2))
        assert await journal.find(UUID(int=2)) == entry(2)
        assert await journal.append(entry(2, image=b"another")) == entry(2)

    with child:
        with_journal(tmp_path, use)


def test_two_that_take_up_at_once_do_not_share_a_file(tmp_path: Path) -> None:
    async def write(journal: Journal) -> None:
        await journal.append(entry(1))

    async def race(one: Journal) -> None:
        other = Journal(tmp_path, KEY)
        await other.open()
        taken = await asyncio.gather(one.take_up(own=False), other.take_up(own=False))
        assert sorted(len(segments) for segments in taken) == [0, 1]
        await other.close()

    with_journal(tmp_path, write)
    with_journal(tmp_path, race)


def test_an_id_that_is_kept_already_gives_the_first_entry(tmp_path: Path) -> None:
    async def use(journal: Journal) -> None:
        first, second = entry(1), entry(1, image=b"another")
        assert await asyncio.gather(journal.append(first), journal.append(second)) == [None, first]
        assert await journal.append(second) == first
        assert await left(journal) == [first]

    with_journal(tmp_path, use)


def test_a_full_journal_refuses_and_keeps_what_it_has(tmp_path: Path) -> None:
    async def use(journal: Journal) -> None:
        await journal.append(entry(1, image=bytes(1000)))
        with pytest.raises(JournalError, match="full"):
            await journal.append(entry(2, image=bytes(1000)))
        assert journal.trouble
        assert await left(journal) == [entry(1, image=bytes(1000))]

    with_journal(tmp_path, use, max_bytes=1500)


def test_a_full_disk_refuses_exactly_what_it_has_no_room_for(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == ["refused: File too large", "well"]

    async def use(journal: Journal) -> None:
        assert [one.id.int for one in await left(journal)] == [1, 3]

    with_journal(tmp_path, use)


def test_a_folder_that_cannot_be_made_is_told_and_not_raised(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    async def use(journal: Journal) -> None:
        assert journal.trouble
        with pytest.raises(JournalError):
            await journal.append(entry(1))

    with_journal(tmp_path / "file" / "journal", use)
