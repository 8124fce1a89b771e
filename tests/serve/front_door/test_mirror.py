"""Mirrored images beside the path: at most so many at once, and none is waited for."""

import asyncio
from typing import Any

import pytest

from serve.dependencies.postgres import DatabaseUnavailableError
from serve.front_door.attempts import Attempt, Attempts
from serve.front_door.mirror import AT_ONCE, Mirror, Shown
from serve.ledger.rows import Mirrored
from tests.serve.models import CANARY, IMAGE, SNAPSHOT, Models, sound

SHOWN = Shown(
    model="xray-vit",
    patient_pseudonym="p",
    assignment={"version": "1"},
    served=Attempt(version="1", outcome="ok", latency_ms=20.0),
)


class Records:
    def __init__(self, *, away: bool = False) -> None:
        self.rows: list[Mirrored] = []
        self.away = away

    async def keep_mirrored(self, row: Mirrored) -> None:
        if self.away:
            raise DatabaseUnavailableError("no answer")
        self.rows.append(row)


def mirrored(records: Any, images: int) -> Mirror:
    async def show() -> Mirror:
        mirror = Mirror(Attempts(Models(sound, sound), deadline_s=5.0), records)
        for _ in range(images):
            mirror.show(SNAPSHOT, [CANARY], IMAGE, SHOWN)
        assert records.rows == []
        await mirror.close()
        return mirror

    return asyncio.run(show())


def test_a_pair_has_both_answers() -> None:
    records = Records()
    assert mirrored(records, 1).left_out == 0
    (row,) = records.rows
    assert (row.served["version"], row.served["label"]) == ("1", None)
    assert (row.shown["version"], row.shown["outcome"]) == ("2", "ok")
    assert row.shown["label"] is not None


@pytest.mark.parametrize(("away", "left_out", "stored"), [(False, 3, AT_ONCE), (True, AT_ONCE + 3, 0)])
def test_what_has_no_room_or_cannot_be_stored_is_counted(away: bool, left_out: int, stored: int) -> None:
    records = Records(away=away)
    assert mirrored(records, AT_ONCE + 3).left_out == left_out
    assert len(records.rows) == stored
