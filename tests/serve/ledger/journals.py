"""A journal in a folder of the test, and its entries."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from uuid import UUID

from serve.ledger.journal import Journal, JournalConfig
from serve.ledger.journal_entry import Entry

KEY = b"k" * 32


def entry(number: int, image: bytes | None = b"png") -> Entry:
    return Entry(kind="prediction", id=UUID(int=number), row={"n": number}, image=image)


def with_journal(folder: Path, use: Callable[[Journal], Awaitable[object]], **config: int) -> None:
    async def scenario() -> None:
        journal = Journal(folder, KEY, JournalConfig(**config))
        await journal.open()
        try:
            await use(journal)
        finally:
            await journal.close()

    asyncio.run(scenario())
