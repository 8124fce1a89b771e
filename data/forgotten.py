"""Patients that were forgotten: marks that lead back to nobody, so that their images are not taken in again.

`data.forget` sets marks, one for the patient and one for each file, which may come again under another name;
`ingest` and `etl` leave out what is marked. A mark is a keyed hash of the pseudonym or of the file's SHA-256, which
themselves are kept nowhere any more.
"""

from collections.abc import Iterable, Sequence

from cluster.secrets import keyed_hash
from data.catalog import Connection, Sample

LOCK = "forget"
"""Lock that `ingest` and `etl` share, and that forgetting holds alone: no version is made of what is being removed."""


def patient_mark(pseudonym: str, key: bytes) -> str:
    """`key` is the pseudonym key."""
    return keyed_hash(key, "forgotten patient", pseudonym)


def file_mark(sha256: str, key: bytes) -> str:
    return keyed_hash(key, "forgotten file", sha256)


def known(connection: Connection) -> frozenset[str]:
    return frozenset(row["mark"] for row in connection.execute("SELECT mark FROM forgotten"))


def is_marked(marks: frozenset[str], pseudonym: str, sha256: str, key: bytes) -> bool:
    """Whether an image is of a forgotten patient or is a forgotten file."""
    return bool(marks) and not marks.isdisjoint((patient_mark(pseudonym, key), file_mark(sha256, key)))


def set_marks(connection: Connection, marks: Iterable[str]) -> None:
    connection.execute(
        "INSERT INTO forgotten (mark) SELECT unnest(%s::text[]) ON CONFLICT DO NOTHING", [sorted(marks)]
    )


def remembered(connection: Connection, samples: Sequence[Sample], key: bytes) -> list[Sample]:
    """The samples that are not marked; others are there while forgetting was cut short."""
    marks = known(connection)
    return [one for one in samples if not is_marked(marks, one.patient_pseudonym, one.sha256, key)]
