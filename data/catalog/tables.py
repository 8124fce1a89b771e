"""The catalog: one row a stored image in PostgreSQL, and beside it the quarantine and the dataset versions.

`ingest` and `etl` read and write it. It holds pseudonyms and never a source's own patient id.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, TypeVar

import psycopg
from psycopg.rows import DictRow
from psycopg.types.json import Jsonb

from cluster import objects
from cluster.database import connect
from cluster.expected import ExpectedError, first_line
from cluster.patience import patiently
from cluster.settings import Settings

T = TypeVar("T")
Connection = psycopg.Connection[DictRow]
SEALED = "sealed"
ROWS_AT_A_TIME = 5000
SHARED_COLUMNS = frozenset({"source", "label", "source_label", "sex", "view", "site", "license"})
"""Columns of few values each: equal ones share their memory."""
AWAY = ("refused", "reset", "closed the connection", "connection is lost", "starting up", "shutting down",
        "terminating connection", "recovery", "timeout", "timed out", "not yet accepting")  # fmt: skip
"""Words in PostgreSQL's messages that say that it is away and may come back, unlike a wrong password."""


class CatalogError(ExpectedError):
    """PostgreSQL cannot be reached or refuses; one line."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """One row of `samples`, column by column."""

    source: str
    sha256: str
    """Of the original file."""
    label: str
    source_label: str
    patient_pseudonym: str
    group_key: str
    sex: str | None
    age: float | None
    """Years."""
    view: str | None
    site: str | None
    license: str
    raw_key: str
    """Key of the sealed original in bucket `raw`."""
    metadata: dict[str, str] = field(default_factory=dict)
    """Further columns; under `sealed` those that are not known to be harmless, encrypted."""

    def same_as(self, other: "Sample") -> bool:
        """Compare all but the sealed text, whose nonce is new each time; its keyed hash is compared."""
        return _comparable(self) == _comparable(other)


@dataclass(frozen=True, kw_only=True)
class Quarantined:
    """One row of `quarantine`."""

    source: str
    sha256: str
    """Of the file, or `path:` and a keyed hash where there is no content."""
    stage: Literal["ingest", "etl"]
    reason: str
    """A code: missing, unreadable, empty, unknown_type, checksum, too_large, truncated, corrupt, ..."""
    detail: str
    """One line, free of patient data."""
    object_key: str | None
    """Key of the sealed original in bucket `quarantine`; None where there is no content."""
    sample: dict[str, Any] | None = None
    """Stage ingest: the row that it would have in `samples`; None where there is no content."""
    pixel_sha256: str | None = None
    """Stage etl, contradictory labels: images of the same pixels share it."""


@contextmanager
def opened(settings: Settings) -> Iterator[Connection]:
    """Open a connection whose errors say what to do.

    Raises:
        CatalogError: also from inside the block, for whatever PostgreSQL refuses there.
    """
    with _explained(), connect(settings.database_url) as connection:
        yield connection


def patient(settings: Settings, work: Callable[[Connection], T], *, patience_s: float) -> T:
    """Run work that is safe to repeat on a connection of its own, again while PostgreSQL is away.

    Raises:
        CatalogError: it stayed away, or refuses.
    """

    def once() -> T:
        with opened(settings) as connection:
            return work(connection)

    return while_away(once, patience_s=patience_s)


def while_away(work: Callable[[], T], *, patience_s: float) -> T:
    """Run work that opens its own connections and is safe to repeat, again while PostgreSQL or the store is away.

    Raises:
        CatalogError, ObjectStoreError, OSError: it stayed away, or refuses.
    """

    def may_pass(error: Exception) -> bool:
        return _is_away(error) if isinstance(error, CatalogError) else objects.may_pass(error)

    errors = (CatalogError, objects.ObjectStoreError, OSError)
    return patiently(work, patience_s=patience_s, errors=errors, may_pass=may_pass)


@contextmanager
def locked(settings: Settings, name: str, *, shared: bool = False) -> Iterator[None]:
    """Hold the lock of that name across the cluster; PostgreSQL frees it when the holder dies.

    It only saves double work: a restart of PostgreSQL frees it too, unnoticed, and the next holder then writes the
    same bytes under the same keys. What must not happen in spite of that is checked again at the end.

    Args:
        shared: others may hold it shared too, while none holds it alone.
    """
    how = "pg_advisory_lock_shared" if shared else "pg_advisory_lock"
    with ExitStack() as held:
        with _explained():
            connection = connect(settings.database_url)
            held.callback(
                connection.close
            )  # which, unlike leaving its context, a lost connection does not fail
            connection.execute(f"SELECT {how}(hashtextextended(%s, 0))".encode(), [name])
        yield


def samples(
    connection: Connection,
    sources: Sequence[str] = (),
    sha256: str | None = None,
    *,
    metadata: bool = True,
) -> list[Sample]:
    """Return the rows of these sources (all when none is named), by source and SHA-256.

    Args:
        sha256: only this file.
        metadata: False leaves it out.
    """
    names = [column.name for column in fields(Sample) if metadata or column.name != "metadata"]
    where = (
        "WHERE (%(every)s OR source = ANY(%(sources)s)) AND (%(sha256)s::text IS NULL OR sha256 = %(sha256)s)"
    )
    query = f"SELECT {', '.join(names)} FROM samples {where} ORDER BY source, sha256"
    parameters = {"every": not sources, "sources": list(sources), "sha256": sha256}
    nothing: dict[str, str] = {}
    shared: dict[str, str] = {}
    rows = []
    with connection.transaction(), connection.cursor(name="samples") as cursor:
        cursor.itersize = ROWS_AT_A_TIME
        for row in cursor.execute(query.encode(), parameters):
            for column in SHARED_COLUMNS:
                if row[column] is not None:
                    row[column] = shared.setdefault(row[column], row[column])
            rows.append(Sample(**{"metadata": nothing, **row}))
    return rows


def sources(connection: Connection) -> list[str]:
    """Return the sources that have at least one image."""
    return [row["source"] for row in connection.execute("SELECT DISTINCT source FROM samples ORDER BY 1")]


def write_samples(connection: Connection, rows: Sequence[Sample]) -> None:
    """Insert rows, or replace what is known of the same image, in one transaction."""
    _upsert(
        connection,
        "samples",
        "(source, sha256)",
        [{**asdict(row), "metadata": Jsonb(row.metadata)} for row in rows],
    )


def write_quarantine(connection: Connection, rows: Sequence[Quarantined]) -> None:
    """Insert rows, or replace the reason of the same image and stage, in one transaction."""
    _upsert(
        connection,
        "quarantine",
        "(source, sha256, stage)",
        [{**asdict(row), "sample": row.sample and Jsonb(row.sample)} for row in rows],
    )


def write_version(connection: Connection, version: str, manifest: Mapping[str, Any]) -> None:
    """Note a published dataset version; noting it again changes nothing."""
    connection.execute(
        "INSERT INTO dataset_versions (version, manifest) VALUES (%s, %s) ON CONFLICT DO NOTHING",
        [version, Jsonb(manifest)],
    )


def quarantined(connection: Connection, sources: Sequence[str]) -> list[Quarantined]:
    """Return the quarantine of these sources, by reason and image."""
    columns = ", ".join(column.name for column in fields(Quarantined))
    query = f"SELECT {columns} FROM quarantine WHERE source = ANY(%s) ORDER BY reason, source, sha256, stage"
    return [Quarantined(**row) for row in connection.execute(query.encode(), [list(sources)])]


def versions(connection: Connection) -> list[dict[str, Any]]:
    """Return the manifests of the dataset versions, newest first."""
    rows = connection.execute("SELECT manifest FROM dataset_versions ORDER BY created_at DESC, version")
    return [row["manifest"] for row in rows]


def _upsert(connection: Connection, table: str, key: str, rows: Sequence[dict[str, Any]]) -> None:
    if not rows:
        return
    names = list(rows[0])
    values = ", ".join(f"%({name})s" for name in names)
    changes = ", ".join(f"{name} = EXCLUDED.{name}" for name in names)
    query = (
        f"INSERT INTO {table} ({', '.join(names)}) VALUES ({values}) "
        f"ON CONFLICT {key} DO UPDATE SET {changes}"
    )
    with connection.transaction(), connection.cursor() as cursor:
        cursor.executemany(query.encode(), rows)


def _comparable(row: Sample) -> dict[str, Any]:
    values = asdict(row)
    values["metadata"] = {name: value for name, value in row.metadata.items() if name != SEALED}
    return values


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except psycopg.OperationalError as error:
        raise CatalogError(
            f"PostgreSQL does not answer: {first_line(error)}. "
            "`make status` shows whether it runs; what was stored stays, so run the same command again"
        ) from error
    except psycopg.errors.UndefinedTable as error:
        raise CatalogError(
            f"the database has no schema yet ({first_line(error)}): run `make up`, which migrates it"
        ) from error
    except psycopg.Error as error:
        raise CatalogError(f"PostgreSQL refuses: {first_line(error)}") from error


def _is_away(error: Exception) -> bool:
    cause = error.__cause__
    return isinstance(cause, psycopg.OperationalError) and any(word in str(cause) for word in AWAY)


def newest_version(settings: Settings) -> str:
    """Return the dataset version that was made last.

    Raises:
        CatalogError: there is none yet, or PostgreSQL does not answer.
    """
    with opened(settings) as connection:
        row = connection.execute(
            "SELECT version FROM dataset_versions ORDER BY created_at DESC LIMIT 1"
        ).fetchone()
    if row is None:
        raise CatalogError("there is no dataset version yet: run `python -m jobs.etl` first")
    return row["version"]
