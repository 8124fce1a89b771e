"""Read the attempt ledger as it grows: who decides about a canary asks again and again for what is new.

Rows come in the order in which their transactions began, and only once every earlier transaction has ended, so none
that commits late is missed and none is read twice. A transaction of anybody in the database server that stays open
holds new rows back until it ends; rows of the front doors are single statements, so theirs last milliseconds.
Source: PostgreSQL's documentation, 9.28.8, on `pg_snapshot_xmin`.
"""

from typing import Any

from psycopg import Connection
from psycopg.rows import DictRow

BATCH = 5_000
COLUMNS = (
    "id, created_at, model, patient_pseudonym, assignment, attempts, committed_by::text::bigint AS position"
)
READ = f"""
    SELECT * FROM (
        (SELECT 'answered' AS kind, {COLUMNS}, served_version, (answer->>'abstained')::boolean AS abstained,
                answer->>'label' AS label
         FROM predictions
         WHERE committed_by >= %(since)s::text::xid8 AND committed_by < %(until)s::text::xid8
         ORDER BY committed_by LIMIT %(limit)s)
        UNION ALL
        (SELECT 'failed', {COLUMNS}, NULL, NULL, NULL
         FROM failed_requests
         WHERE committed_by >= %(since)s::text::xid8 AND committed_by < %(until)s::text::xid8
         ORDER BY committed_by LIMIT %(limit)s)
        UNION ALL
        (SELECT 'explained', {COLUMNS}, NULL, NULL, NULL
         FROM explained_requests
         WHERE committed_by >= %(since)s::text::xid8 AND committed_by < %(until)s::text::xid8
         ORDER BY committed_by LIMIT %(limit)s)
    ) AS requests ORDER BY position, created_at, id
"""


def now(connection: Connection[DictRow]) -> int:
    """The cursor from which `read_since` gives what is written from here on, and what is being written."""
    row = connection.execute(
        "SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint AS position"
    ).fetchone()
    assert row is not None
    position: int = row["position"]
    return position


def read_since(
    connection: Connection[DictRow], cursor: int, *, batch: int = BATCH
) -> tuple[list[dict[str, Any]], int]:
    """What has been written since `cursor` (0: since ever), and the cursor to go on from.

    Args:
        batch: about how many rows ; ask again until none comes. What one transaction wrote is never divided.
    Returns:
        rows of answered and failed requests, and of explanations that were asked for: kind, id, created_at (of the
        answer, by the front door's clock), model, patient_pseudonym, assignment, attempts; served_version, abstained
        and label, None where nothing was classified.
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
    """Mirrored images between two cursors of `read_since`."""
    return connection.execute(MIRRORED, (since, until)).fetchall()


def _rows(connection: Connection[DictRow], since: int, until: int, limit: int | None) -> list[DictRow]:
    return connection.execute(READ, {"since": since, "until": until, "limit": limit}).fetchall()


def _cut(rows: list[DictRow], batch: int) -> int | None:
    """The transaction at which the limit may have cut a table's rows; None where it cut nothing."""
    positions: dict[str, list[int]] = {}
    for row in rows:
        positions.setdefault(row["kind"], []).append(row["position"])
    return min((one[-1] for one in positions.values() if len(one) >= batch), default=None)
