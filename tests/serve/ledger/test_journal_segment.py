"""One file of the journal: torn ends, holes."""

from pathlib import Path

import pytest

from serve.ledger.journal_entry import encode
from serve.ledger.journal_segment import Segment
from tests.serve.ledger.journals import KEY, entry


@pytest.mark.parametrize("kept", [0, 1, 20, 28, 29, 30, 60])
def test_a_torn_last_entry_is_dropped_and_those_before_it_stay(tmp_path: Path, kept: int) -> None:
    whole, torn = encode(entry(1), KEY) + encode(entry(2), KEY), encode(entry(3), KEY)
    assert kept < len(torn)
    path = tmp_path / "1-a.journal"
    path.write_bytes(whole + torn[:kept])
    segment = Segment.adopt(path)
    assert segment is not None
    assert list(segment.entries(KEY)) == [entry(1), entry(2)]
    assert not segment.damaged
    segment.remove()
    assert list(tmp_path.iterdir()) == []


def test_a_hole_is_told_from_a_torn_end_and_what_comes_after_it_is_not_lost(tmp_path: Path) -> None:
    blob = bytearray(encode(entry(1), KEY) + encode(entry(2), KEY) + encode(entry(3), KEY))
    blob[len(encode(entry(1), KEY)) + 40] ^= 1
    path = tmp_path / "1-a.journal"
    path.write_bytes(blob)
    segment = Segment.adopt(path)
    assert segment is not None
    assert list(segment.entries(KEY)) == [entry(1), entry(3)]
    segment.remove()
    assert [one.name for one in tmp_path.iterdir()] == ["1-a.damaged"]
