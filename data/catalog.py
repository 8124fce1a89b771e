"""The catalog: one row a stored image in PostgreSQL, and beside it the quarantine and the dataset versions.

`ingest` and `etl` read and write it. It holds pseudonyms and never a source's own patient id.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

import psycopg
from psycopg.rows import DictRow
from psycopg.types.json import Jsonb

from cluster.database import connect
from cluster.settings import Settings

Connection = psycopg.Connection[DictRow]
SEALED = "sealed"


class CatalogError(RuntimeError):
    """PostgreSQL cannot be reached or refuses; one line."""


@dataclass(frozen=True, kw_only=True)
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
    """Further columns; under `sealed` those that nobody declared harmless, encrypted."""

    def same_as(self, other: "Sample") -> bool:
        """Equal but for the sealed text, whose nonce is new each time; its keyed hash is compared."""
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
    """A connection whose errors say what to do.

    Raises:
        CatalogError: also from inside the block, for whatever PostgreSQL refuses there.
    """
    try:
        with connect(settings.database_url) as connection:
            yield connection
    except psycopg.OperationalError as error:
        raise CatalogError(
            f"PostgreSQL does not answer: {_first_line(error)}. "
            "`make status` shows whether it runs; what was stored stays, so run the same command again"
        ) from error
    except psycopg.errors.UndefinedTable as error:
        raise CatalogError(
            f"the database has no schema yet ({_first_line(error)}): run `make up`, which migrates it"
        ) from error
    except psycopg.Error as error:
        raise CatalogError(f"PostgreSQL refuses: {_first_line(error)}") from error


@contextmanager
def locked(settings: Settings, name: str, *, shared: bool = False) -> Iterator[None]:
    """Hold the lock of that name across the cluster; PostgreSQL frees it when the holder dies.

    Args:
        shared: others may hold it shared too, while nobody holds it alone.
    """
    how = "pg_advisory_lock_shared" if shared else "pg_advisory_lock"
    with opened(settings) as connection:
        connection.execute(f"SELECT {how}(hashtextextended(%s, 0))".encode(), [name])
        yield


def samples(connection: Connection, sources: Sequence[str] = (), sha256: str | None = None) -> list[Sample]:
    """The rows of these sources (all when none is named), by source and SHA-256; of one file where it is given."""
    columns = ", ".join(one.name for one in fields(Sample))
    where = (
        "WHERE (%(every)s OR source = ANY(%(sources)s)) AND (%(sha256)s::text IS NULL OR sha256 = %(sha256)s)"
    )
    query = f"SELECT {columns} FROM samples {where} ORDER BY source, sha256"
    parameters = {"every": not sources, "sources": list(sources), "sha256": sha256}
    return [Sample(**row) for row in connection.execute(query.encode(), parameters)]


def sources(connection: Connection) -> list[str]:
    """The sources that have at least one image."""
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


def audit(
    connection: Connection, *, actor: str, action: str, subject: str, detail: Mapping[str, Any]
) -> None:
    """Add a row to the audit table, which nothing changes or removes: no identity of a patient belongs there."""
    connection.execute(
        "INSERT INTO audit (actor, action, subject, detail) VALUES (%s, %s, %s, %s)",
        [actor, action, subject, Jsonb(detail)],
    )


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


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def newest_version(settings: Settings) -> str:
    """The dataset version that was made last.

    Raises:
        CatalogError: there is none yet, or PostgreSQL does not answer.
    """
    with opened(settings) as connection:
        row = connection.execute(
            "SELECT version FROM dataset_versions ORDER BY created_at DESC LIMIT 1"
        ).fetchone()
    if row is None:
        raise CatalogError("there is no dataset version yet: run `python -m jobs.etl` first")
    version: str = row["version"]
    return version
