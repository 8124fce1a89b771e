"""Mirrored traffic: further versions get a copy of an image, and their answers are compared with the client's.

Mirroring begins once the client has the answer, so it slows no request; images beyond the capacity are left out and
counted. Pairs are stored while the database accepts them.
"""

import asyncio
import logging
import uuid
from dataclasses import dataclass
from typing import Any

from data.imaging.preprocess import Decoded
from serve.dependencies.postgres import DatabaseUnavailableError
from serve.front_door.attempts import Attempt, Attempts
from serve.front_door.serving_snapshot import ServingSnapshot
from serve.ledger.rows import Mirrored
from serve.ledger.writer import Records
from serve.routing.routes import Target

logger = logging.getLogger(__name__)

AT_ONCE = 4
"""Images that one front door mirrors at a time; each is held in memory meanwhile."""
DEADLINE_S = 5.0
"""Seconds that a version may take."""


@dataclass(frozen=True, kw_only=True)
class Shown:
    """The request and the answer that a mirrored image belongs to."""

    model: str
    patient_pseudonym: str | None
    assignment: dict[str, Any]
    served: Attempt


class Mirror:
    """Sends mirrored images to further versions, for one front door."""

    def __init__(self, attempts: Attempts, records: Records) -> None:
        self.left_out = 0
        """Images that were not mirrored, or whose pair was not stored."""
        self._attempts = attempts
        self._records = records
        self._under_way: set[asyncio.Task[None]] = set()

    def show(self, snapshot: ServingSnapshot, targets: list[Target], decoded: Decoded, shown: Shown) -> None:
        """Start mirroring and return at once."""
        for target in targets:
            if len(self._under_way) >= AT_ONCE:
                self.left_out += 1
                continue
            task = asyncio.create_task(self._show(snapshot, target, decoded, shown))
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)

    async def _show(self, snapshot: ServingSnapshot, target: Target, decoded: Decoded, shown: Shown) -> None:
        attempt = await self._attempts.ask_version(snapshot, target, decoded, DEADLINE_S)
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
        except DatabaseUnavailableError:
            self.left_out += 1

    async def close(self) -> None:
        """Wait for the mirrored images under way."""
        await asyncio.gather(*self._under_way)


def _as_row(attempt: Attempt) -> dict[str, Any]:
    label = None if attempt.answer is None else attempt.answer.label
    return {**attempt.as_row(), "label": label}
