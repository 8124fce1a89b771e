"""Read the attempt ledger as it grows, for the controller that decides about a canary.

Rows come in the order in which their transactions began, and only once every earlier transaction has ended, so none
that commits late is missed and none is read twice. Any transaction in the database server that stays open holds new
rows back; rows of the front doors are single statements that last milliseconds. Source: PostgreSQL's documentation,
9.28.8, on `pg_snapshot_xmin`.
"""

from typing import Any

from psycopg import Connection
from psycopg.rows import DictRow

BATCH = 5_000
COLUMNS = (
    "id, created_at, model, patient_pseudonym, assignment, attempts, committed_by::text::bigint AS position"
)
NEW = """WHERE committed_by >= %(since)s::text::xid8 AND committed_by < %(until)s::text::xid8
         ORDER BY committed_by LIMIT %(limit)s"""
READ = f"""
    SELECT * FROM (
        (SELECT 'answered' AS kind, {COLUMNS}, served_version, (answer->>'abstained')::boolean AS abstained,
                answer->>'label' AS label
         FROM predictions {NEW})
        UNION ALL
        (SELECT 'failed', {COLUMNS}, NULL, NULL, NULL FROM failed_requests {NEW})
        UNION ALL
        (SELECT 'explained', {COLUMNS}, NULL, NULL, NULL FROM explained_requests {NEW})
    ) AS requests ORDER BY position, created_at, id
"""


def now(connection: Connection[DictRow]) -> int:
    """Return the cursor from which `read_since` yields rows written from now on, and those being written."""
    row = connection.execute(
        "SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint AS position"
    ).fetchone()
    assert row is not None
    return row["position"]


def read_since(
    connection: Connection[DictRow], cursor: int, *, batch: int = BATCH
) -> tuple[list[dict[str, Any]], int]:
    """Return the rows written since `cursor` (0: all), and the next cursor.

    Args:
        batch: about how many rows; call again until none comes. Rows of one transaction are never divided.
    Returns:
        rows of answered and failed requests and of explanation attempts: kind, id, created_at (of the
        answer, by the front door's clock), model, patient_pseudonym, assignment, attempts; served_version, abstained
        and label, None unless an image was classified.
    """
    until = now(connection)  # every transaction below it has ended before the next statement looks
    rows = _rows(connection, cursor, until, batch)
    cut = _cut(rows, batch)
    if cut is not None:
        whole = [row for row in rows if row["position"] < cut]
        rows, until = (whole, cut) if whole else (_rows(connection, cut, cut + 1, None), cut + 1)
    return [{name: value for name, value in row.items() if name != "position"} for row in rows], until


MIRRORED = """
    SELECT id, created_at, model, patient_pseudonym, assignment, served, shown FROM mirrored_requests
    WHERE committed_by >= %s::text::xid8 AND committed_by < %s::text::xid8 ORDER BY committed_by, created_at, id
"""


def read_mirrored(connection: Connection[DictRow], since: int, until: int) -> list[DictRow]:
    """Return the mirrored images between two cursors of `read_since`."""
    return connection.execute(MIRRORED, (since, until)).fetchall()


def _rows(connection: Connection[DictRow], since: int, until: int, limit: int | None) -> list[DictRow]:
    return connection.execute(READ, {"since": since, "until": until, "limit": limit}).fetchall()


def _cut(rows: list[DictRow], batch: int) -> int | None:
    """Return the transaction at which the limit may have cut a table's rows; None if it cut nothing."""
    positions: dict[str, list[int]] = {}
    for row in rows:
        positions.setdefault(row["kind"], []).append(row["position"])
    return min((table[-1] for table in positions.values() if len(table) >= batch), default=None)
