"""Erase a patient (GDPR, article 17): every image, wherever it lies, and the identity.

`jobs.ingest --forget` calls it. It holds a lock that `ingest` and `etl` share, so nothing is made of what it
removes. Order: a mark against coming back; the dataset versions (`data.privacy.tombstones`); what lies staged; the
originals; and in one transaction, last, the rows and the audit. Cut off anywhere, the same call again ends in the
same state. Images are found by patient and by file: the same file under another name is the same X-ray, and is
erased too.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import pyarrow as pa
from psycopg.types.json import Jsonb

from cluster.database import audit
from cluster.objects import ObjectStore
from cluster.releases.registry import VIT, Registry
from cluster.secrets import keyed_hash
from cluster.settings import Settings
from data.catalog import erased_patients, tables
from data.catalog.originals import QUARANTINE, RAW, Originals
from data.catalog.tables import Connection
from data.dataset import split_decisions, versions
from data.dataset.staging import STAGING
from data.dataset.versions import BUCKET
from data.privacy import image_rows, tombstones
from data.privacy.tombstones import Image

INDEX = "_index/"
"""Keys in bucket `datasets` that name versions and hold nothing of an image."""
Step = Callable[[str], None]


class ErasureError(ValueError):
    """Nothing was removed; one line that says what to do, without the patient's id."""


@dataclass(frozen=True, kw_only=True)
class ErasureReport:
    source: str
    mark: str
    """Keyed hash of the pseudonym, which stands for the patient in the audit."""
    images: int
    """Rows removed from the catalog by this call, those of the same files under other names included."""
    quarantined: int
    """Rows removed from the quarantine."""
    objects: int
    """Sealed originals removed from the buckets `raw` and `quarantine`."""
    staged: int
    """Files of unfinished work, removed from bucket `datasets`; the next `etl` does that work again."""
    dataset_versions: tuple[str, ...]
    """Every dataset version that held the patient, whichever call removed the rows."""
    model_versions: tuple[str, ...]
    """Every registered model version that was trained on one of these."""
    again: bool
    """True when the patient had been erased before and nothing was left to do."""


@dataclass(frozen=True, kw_only=True)
class _Target:
    source: str
    pseudonym: str
    mark: str


def erase(
    settings: Settings, patient_id: str, source: str | None = None, *, by: str, step: Step | None = None
) -> ErasureReport:
    """Remove a patient; safe to repeat.

    Args:
        patient_id: as the source has it.
        source: the source of the id; needed where several sources have a patient of this id.
        by: name of the requester, for the audit table.
        step: called with a note on each step.
    Raises:
        ErasureError: no such patient, or one in several sources.
        CatalogError, ObjectStoreError, RegistryError: run it again when that is mended.
    """
    report = step or (lambda note: None)
    originals = Originals.of(settings)
    store = ObjectStore(settings)
    report("waiting until nothing is being ingested or made into a dataset")
    with tables.locked(settings, erased_patients.LOCK), tables.opened(settings) as connection:
        target = _target(connection, originals.pseudonym_key, patient_id, source)
        images, licenses = _images(connection, target.pseudonym)
        marks = {erased_patients.file_mark(sha256, originals.pseudonym_key) for _, sha256 in images}
        erased_patients.set_marks(connection, {target.mark, *marks})
        finished = _finished(connection, target.mark)
        report(f"{len(images)} images to remove")
        again = finished and not images
        named = _versions(connection, store, images, target, licenses, report, only_name=again)
        staged = _staged(store, images, target, report)
        keys = {originals.key_of(sha256) for _, sha256 in images}
        objects = sum(_remove(store, originals, bucket, keys) for bucket in (RAW, QUARANTINE))
        report("originals removed")
        models = Registry(settings).trained_on(VIT, named)
        counts = _rows(
            connection, images, target, {target.mark, *marks}, by, named, models, finished=finished
        )
    return ErasureReport(
        source=target.source,
        mark=target.mark,
        images=counts.get("samples", 0),
        quarantined=counts.get("quarantine", 0),
        objects=objects,
        staged=staged,
        dataset_versions=tuple(named),
        model_versions=tuple(models),
        again=again,
    )


def _target(connection: Connection, key: bytes, patient_id: str, source: str | None) -> _Target:
    """Find the one source that knows this patient, or once did."""
    known = [source] if source is not None else _sources(connection)
    marks = erased_patients.erased_marks(connection)
    targets = []
    for name in known:
        pseudonym = keyed_hash(key, "patient", name, patient_id)
        target = _Target(source=name, pseudonym=pseudonym, mark=erased_patients.patient_mark(pseudonym, key))
        if target.mark in marks or _images(connection, pseudonym)[0]:
            targets.append(target)
    if not targets:
        where = ", ".join(known) or "the catalog is empty"
        raise ErasureError(
            f"no patient of this id in: {where}. Nothing was removed; it is the id as the source writes it, and "
            "--forget_source names a source that has no image left"
        )
    if len(targets) > 1:
        names = ", ".join(target.source for target in targets)
        raise ErasureError(
            f"several sources have a patient of this id, who need not be the same person: {names}. "
            "Nothing was removed; name one with --forget_source"
        )
    return targets[0]


def _sources(connection: Connection) -> list[str]:
    query = "SELECT source FROM samples UNION SELECT source FROM quarantine ORDER BY 1"
    return [row["source"] for row in connection.execute(query)]


def _finished(connection: Connection, mark: str) -> bool:
    """Tell whether an earlier call erased everything."""
    row = connection.execute("SELECT finished_at FROM forgotten WHERE mark = %s", [mark]).fetchone()
    return row is not None and row["finished_at"] is not None


def _images(connection: Connection, pseudonym: str) -> tuple[set[Image], dict[Image, str]]:
    """Return the patient's images, with every other row of the same files, and the licences known of them."""
    rows = connection.execute(
        "WITH files AS (SELECT sha256 FROM samples WHERE patient_pseudonym = %(patient)s"
        " UNION SELECT sha256 FROM further_owners WHERE patient_pseudonym = %(patient)s"
        " UNION SELECT sha256 FROM quarantine WHERE sample->>'patient_pseudonym' = %(patient)s)"
        " SELECT source, sha256, license FROM samples WHERE sha256 IN (SELECT sha256 FROM files)"
        " UNION SELECT source, sha256, NULL FROM quarantine WHERE sha256 IN (SELECT sha256 FROM files)",
        {"patient": pseudonym},
    ).fetchall()
    images = {(row["source"], row["sha256"]) for row in rows}
    return images, {(row["source"], row["sha256"]): row["license"] for row in rows if row["license"]}


def _versions(
    connection: Connection,
    store: ObjectStore,
    images: Collection[Image],
    target: _Target,
    licenses: dict[Image, str],
    report: Step,
    *,
    only_name: bool,
) -> list[str]:
    """Take the images out of every published version; return the names of those that had one."""
    sources = {target.source, *(source for source, _ in images)}
    named = []
    for version in versions.names(store):
        shown = sources & {*versions.manifest(store, version).get("sources", ())}
        erased = tombstones.erase_rows(store, version, images, target.mark, licenses)
        if not only_name and (
            erased.rows or erased.unlisted or shown
        ):  # a page may show a reject that never was a row
            tombstones.clean(store, version)
        if erased.rows or erased.broken:
            named.append(version)
            report(
                f"dataset version {version}: {erased.rows} rows are tombstones, {erased.parts} files written anew"
                + (f", {erased.broken} damaged files removed" if erased.broken else "")
            )
        if erased.rows or erased.broken or erased.unlisted:
            connection.execute(
                "UPDATE dataset_versions SET manifest = %s WHERE version = %s",
                [Jsonb(versions.manifest(store, version)), version],
            )
    return named


def _staged(store: ObjectStore, images: Collection[Image], target: _Target, report: Step) -> int:
    """Delete what unfinished or cached work holds of the images: whatever lies beside the published versions."""
    if not images:
        return 0
    published = {f"{name}/" for name in versions.names(store)}
    words = [target.pseudonym.encode(), *(sha256.encode() for _, sha256 in images)]
    gone = []
    for key in store.keys(BUCKET, ""):
        if key.startswith((INDEX, *published)):
            continue
        # Some of what a killed `etl` has staged does not name its images, so all of it goes.
        if key.startswith(f"{STAGING}/") or _tells_of(store, key, images, words):
            gone.append(key)
    store.delete(BUCKET, gone)
    if gone:
        report(f"{len(gone)} files of unfinished work removed")
    return len(gone)


def _tells_of(store: ObjectStore, key: str, images: Collection[Image], words: Sequence[bytes]) -> bool:
    """Tell whether an object holds one of the images, or names one."""
    if key.endswith(".parquet"):
        try:
            return bool(tombstones.holds(tombstones.columns_of(store, key), images).true_count)
        except pa.ArrowInvalid:
            return True  # no whole file, so of no use to anybody
    blob = key.encode() + b"\n" + store.get(BUCKET, key)
    return any(word in blob for word in words)


def _remove(store: ObjectStore, originals: Originals, bucket: str, keys: Collection[str]) -> int:
    there = originals.present(bucket, keys)
    store.delete(bucket, sorted(there))
    return len(there)


def _rows(
    connection: Connection,
    images: Collection[Image],
    target: _Target,
    marks: Collection[str],
    by: str,
    named: Sequence[str],
    models: Sequence[str],
    *,
    finished: bool,
) -> dict[str, int]:
    """Delete the rows of the images in every table that has some, and say so in the audit: all or nothing.

    Returns:
        table → rows deleted.
    """
    with connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [split_decisions.LOCK])
        counts = {
            table: image_rows.delete(connection, table, images, target.pseudonym)
            for table in image_rows.tables(connection)
        }
        if not finished or images:
            audit(
                connection,
                actor=by,
                action="forget_patient",
                subject=f"patient/{target.mark}",
                detail={
                    "rows": {table: number for table, number in counts.items() if number},
                    "dataset_versions": list(named),
                    "model_versions": list(models),
                },
            )
        connection.execute("UPDATE forgotten SET finished_at = now() WHERE mark = ANY(%s)", [sorted(marks)])
    return counts
