"""Marks of erased patients, which lead back to no one, so that their images are not taken in again.

`data.privacy.erasure` sets a mark for the patient and one for each file, which may come again under another name;
`ingest` and `etl` leave out what is marked. A mark is a keyed hash of the pseudonym or of the file's SHA-256,
which themselves are stored nowhere any more.
"""

from collections.abc import Iterable, Sequence

from cluster.secrets import keyed_hash
from data.catalog.tables import Connection, Sample

LOCK = "forget"
"""Lock that `ingest` and `etl` share, and that erasure holds alone: no version is made of what is being removed."""


def patient_mark(pseudonym: str, key: bytes) -> str:
    """Compute the mark of a patient; `key` is the pseudonym key."""
    return keyed_hash(key, "forgotten patient", pseudonym)


def file_mark(sha256: str, key: bytes) -> str:
    return keyed_hash(key, "forgotten file", sha256)


def erased_marks(connection: Connection) -> frozenset[str]:
    return frozenset(row["mark"] for row in connection.execute("SELECT mark FROM forgotten"))


def is_marked(marks: frozenset[str], pseudonym: str, sha256: str, key: bytes) -> bool:
    """Tell whether an image is of an erased patient or is an erased file."""
    return bool(marks) and not marks.isdisjoint((patient_mark(pseudonym, key), file_mark(sha256, key)))


def set_marks(connection: Connection, marks: Iterable[str]) -> None:
    connection.execute(
        "INSERT INTO forgotten (mark) SELECT unnest(%s::text[]) ON CONFLICT DO NOTHING", [sorted(marks)]
    )


def without_erased(connection: Connection, samples: Sequence[Sample], key: bytes) -> list[Sample]:
    """Return the samples that are not marked; marked ones are there when an erasure was cut short."""
    marks = erased_marks(connection)
    return [
        sample for sample in samples if not is_marked(marks, sample.patient_pseudonym, sample.sha256, key)
    ]
