"""Files that a source attributes to more than one patient: the catalog has a row for one, this table the others.

A source may list one file under two patients, or under another patient than it did before. Which one is right cannot
be told, so both stay: `etl` ties them together, so that no patient's picture is on two sides of a split, and
`data.privacy.erasure` finds the file by either. `ingest` writes the table; only erasure deletes from it.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass

from data.catalog.tables import Connection

Image = tuple[str, str]
"""Source and SHA-256 of the original file."""
Others = Mapping[Image, tuple[tuple[str, str], ...]]
"""Image → patient and group key of each further owner."""


@dataclass(frozen=True, kw_only=True, order=True)
class Owner:
    """One row of `further_owners`."""

    source: str
    sha256: str
    """Of the original file."""
    patient_pseudonym: str
    group_key: str


def write(connection: Connection, owners: Iterable[Owner]) -> None:
    """Insert the owners that are not there."""
    rows = [astuple(owner) for owner in sorted(set(owners))]
    query = (
        "INSERT INTO further_owners (source, sha256, patient_pseudonym, group_key) VALUES (%s, %s, %s, %s) "
        "ON CONFLICT DO NOTHING"
    )
    with connection.transaction(), connection.cursor() as cursor:
        cursor.executemany(query, rows)


def read(connection: Connection, sources: Sequence[str] = ()) -> Others:
    """Return the further owners of the images of these sources (all when none is named), sorted."""
    query = (
        "SELECT source, sha256, patient_pseudonym, group_key FROM further_owners "
        "WHERE %(every)s OR source = ANY(%(sources)s) "
        "ORDER BY source, sha256, patient_pseudonym, group_key"
    )
    owners_of: dict[Image, list[tuple[str, str]]] = defaultdict(list)
    for row in connection.execute(query, {"every": not sources, "sources": list(sources)}):
        owners_of[row["source"], row["sha256"]].append((row["patient_pseudonym"], row["group_key"]))
    return {image: tuple(owners) for image, owners in owners_of.items()}
