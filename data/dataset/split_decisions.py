"""Remember in PostgreSQL on which side of the split each image is, so that later versions keep to it.

`etl` calls `decide` before it writes a version. A decision is remembered before the version that made it is
published: a run that was cut short decides the same again, and no published version has an unknown decision.
"""

from collections.abc import Sequence

from cluster.settings import Settings
from data.catalog import erased_patients, tables
from data.catalog.tables import Connection
from data.dataset.groups import Placement
from data.dataset.rows import Assembly, Candidate, assemble
from data.dataset.split import SHARES

LOCK = "placements"


def scheme(seed: int) -> str:
    """Name a scheme: versions of one scheme agree on every image's side; another seed or shares draw anew."""
    return f"seed {seed}, " + ", ".join(f"{name} {share:g}" for name, share in SHARES.items())


def decide(
    settings: Settings,
    candidates: Sequence[Candidate],
    classes: Sequence[str],
    *,
    key: bytes,
    seed: int,
    inputs: str,
) -> Assembly:
    """Assemble a version in accord with what was decided before it, and remember what is new.

    One at a time: two versions that are made at once must not put one patient on two sides. Erasing a patient takes
    the same lock, so no placement of an erased patient is written.

    Args:
        inputs: fingerprint of the images and settings. Decided once, it is decided the same way for ever: what
            other versions have decided since is left aside.
    Raises:
        CatalogError: PostgreSQL does not answer or refuses.
    """
    named = scheme(seed)
    with tables.opened(settings) as connection, connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [LOCK])
        number = _number(connection, named, inputs)
        before = _remembered(connection, named, number)
        assembly = assemble(candidates, classes, key=key, seed=seed, before=before)
        marks = erased_patients.erased_marks(connection)
        lasting = [
            placement
            for placement in assembly.placements
            if not erased_patients.is_marked(marks, placement.patient, placement.sha256, key)
        ]
        _remember(connection, named, number, lasting)
    return assembly


def _number(connection: Connection, named: str, inputs: str) -> int:
    """Return the number of the decision for these inputs; the next one where there is none yet."""
    connection.execute(
        "INSERT INTO split_decisions (scheme, inputs, number) "
        "SELECT %(scheme)s, %(inputs)s, 1 + coalesce(max(number), 0) FROM split_decisions "
        "WHERE scheme = %(scheme)s ON CONFLICT DO NOTHING",
        {"scheme": named, "inputs": inputs},
    )
    query = "SELECT number FROM split_decisions WHERE scheme = %s AND inputs = %s"
    (row,) = connection.execute(query, [named, inputs]).fetchall()
    return int(row["number"])


def _remembered(connection: Connection, named: str, number: int) -> list[Placement]:
    """Return the placements decided up to this number."""
    query = (
        "SELECT source, sha256, patient_pseudonym AS patient, group_key, split, decided "
        "FROM placements WHERE scheme = %s AND decided <= %s"
    )
    return [Placement(**row) for row in connection.execute(query, [named, number])]


def _remember(connection: Connection, named: str, number: int, placements: Sequence[Placement]) -> None:
    query = (
        "COPY placements (scheme, source, sha256, patient_pseudonym, group_key, split, decided) FROM STDIN"
    )
    if not placements:
        return
    with connection.cursor() as cursor, cursor.copy(query) as copy:
        for placement in placements:
            copy.write_row((named, *placement.fact, number))
