"""One entry of the journal: encrypted, and checked when read."""

from pathlib import Path
from uuid import UUID

from serve.ledger.journal import Journal
from serve.ledger.journal_entry import Entry, encode
from serve.ledger.journal_segment import Segment
from tests.serve.ledger.journals import KEY, entry, with_journal


def test_a_file_of_another_key_is_kept_for_a_person(tmp_path: Path) -> None:
    path = tmp_path / "1-a.journal"
    path.write_bytes(encode(entry(1), b"o" * 32) + encode(entry(2), KEY))
    segment = Segment.adopt(path)
    assert segment is not None
    assert list(segment.entries(KEY)) == [entry(2)]
    assert segment.damaged
    segment.release()


def test_nothing_of_a_patient_can_be_read_in_the_file(tmp_path: Path) -> None:
    async def use(journal: Journal) -> None:
        await journal.append(
            Entry(
                kind="prediction", id=UUID(int=1), row={"sex": "pseudonym-of-jane"}, image=b"pixels-of-jane"
            )
        )
        (path,) = tmp_path.iterdir()
        assert b"jane" not in path.read_bytes()
        assert path.stat().st_mode & 0o077 == 0

    with_journal(tmp_path, use)
