"""Versions that are only shown images: each answer of theirs is compared with the one that the client got.

It begins when the client has the answer, and nobody waits for it: no request is slowed, and what there is no room or no
time for is left out and counted. Pairs are kept as long as the database takes them.
"""

import asyncio
import logging
import uuid
from dataclasses import dataclass
from typing import Any

from data.preprocess import Decoded
from serve.attempts import Attempt, Attempts
from serve.board import Board
from serve.line import AwayError
from serve.record_rows import Mirrored
from serve.records import Records
from serve.routing import Target

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class MirrorConfig:
    at_once: int = 4
    """Images that one front door shows at a time; each is held in memory meanwhile."""
    deadline_s: float = 5.0
    """How long a version may take."""


@dataclass(frozen=True, kw_only=True)
class Shown:
    """What a mirrored image was answered with."""

    model: str
    patient_pseudonym: str | None
    assignment: dict[str, Any]
    served: Attempt


class Mirror:
    """Shows images to further versions, for one front door."""

    def __init__(self, attempts: Attempts, records: Records, config: MirrorConfig | None = None) -> None:
        self.config = config or MirrorConfig()
        self.left_out = 0
        """Images that there was no room for."""
        self._attempts = attempts
        self._records = records
        self._under_way: set[asyncio.Task[None]] = set()

    def show(self, board: Board, targets: list[Target], decoded: Decoded, shown: Shown) -> None:
        """Returns at once."""
        for target in targets:
            if len(self._under_way) >= self.config.at_once:
                self.left_out += 1
                continue
            task = asyncio.create_task(self._show(board, target, decoded, shown))
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)

    async def _show(self, board: Board, target: Target, decoded: Decoded, shown: Shown) -> None:
        attempt = await self._attempts.one(board, target, decoded, self.config.deadline_s)
        row = Mirrored(
            id=uuid.uuid4(),
            model=shown.model,
            patient_pseudonym=shown.patient_pseudonym,
            assignment=shown.assignment,
            served=_as_row(shown.served),
            shown=_as_row(attempt),
        )
        try:
            await self._records.keep_mirrored(row)
        except AwayError:
            self.left_out += 1

    async def close(self) -> None:
        """Wait for those that are under way."""
        await asyncio.gather(*self._under_way)


def _as_row(attempt: Attempt) -> dict[str, Any]:
    label = None if attempt.answer is None else attempt.answer.label
    return {**attempt.as_row(), "label": label}
