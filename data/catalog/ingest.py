"""Store the images that a source lists: sealed originals in the object store, rows in the catalog.

`jobs.ingest` and `jobs.pipeline` call `ingest` where the folder is. An object is written before its row, so a
run that was cut short leaves nothing that the next one trips over: it stores what is missing. Knows no Ray.
"""

import base64
import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TypeVar

from cluster.progress import OnProgress, silent
from cluster.secrets import keyed_hash, seal
from cluster.settings import Settings
from data.catalog import erased_patients as forgotten
from data.catalog import shared_files, tables
from data.catalog.inspection import Inspection, group_key, inspect
from data.catalog.originals import QUARANTINE, RAW, Originals
from data.catalog.shared_files import Image, Owner
from data.catalog.tables import SEALED, Connection, Quarantined, Sample
from data.imaging import deidentify
from data.sources import manifest
from data.sources.manifest import Manifest, ManifestRow

T = TypeVar("T")

THREADS = 8
BATCH_ROWS = 256
PLAIN_COLUMNS = frozenset(
    {"site", "source_label", "license_status", "width", "height", "orig_width", "orig_height"}
    | {"modality", "body_part", "photometric", "bits", "transfer_syntax", "rows", "cols", "derived"}
    | {"published_split", "part", "origin", "boxes"}
    | {"kind", "seed", "noise", "drift", "bias", "shortcut", "synthetic"}
)
"""Further columns that cannot identify a patient, stored readable; every other one is stored sealed."""


class IngestError(ValueError):
    """The folder changed underneath, or nothing in it could be used; one line."""


@dataclass(frozen=True, kw_only=True)
class IngestReport:
    ingested: int
    """Images that are new in the catalog, or whose row changed."""
    already: int
    """Images that were there, unchanged."""
    duplicates: int
    """Rows whose file is, byte for byte, that of another row of the same source and label."""
    shared: int
    """Files that are attributed to more than one patient or group, in these rows or in earlier ones: kept once, all of
    them on one side of every split."""
    quarantined: int
    """Rows whose file cannot be used."""
    forgotten: int
    """Rows of erased patients; nothing of them was stored."""
    by_reason: dict[str, int]
    """Reason → number of quarantined rows."""
    sources: tuple[str, ...]
    """Sources that the manifest names."""


@dataclass(frozen=True, kw_only=True)
class _Todo:
    inspection: Inspection
    sample: Sample
    upload: bool
    """True when the original is missing too, and not only its row."""


def ingest(listed: Manifest | Path, settings: Settings, progress: OnProgress = silent) -> IngestReport:
    """Store every listed image that is not stored yet; safe to repeat.

    Args:
        listed: what a source of `data.sources` lists; a folder stands for its `manifest.csv`.
    Raises:
        ManifestError: the manifest cannot be used; nothing was stored.
        IngestError, CatalogError, ObjectStoreError, SecretError: what happened and what to do, in one line.
    """
    if isinstance(listed, Path):
        listed = manifest.read(listed)
    originals = Originals.of(settings)
    total = len(listed.rows)
    progress(0, total, f"reading {total} files")
    with ThreadPoolExecutor(THREADS) as pool, tables.opened(settings) as connection:
        inspections = list(pool.map(lambda row: inspect(row, originals.pseudonym_key), listed.rows))
        if all(inspection.reason == "missing" for inspection in inspections):
            raise IngestError(
                f"none of the {total} files that {listed.folder / listed.title} names exists; "
                "paths are relative to the manifest"
            )
        inspections = _agreed(listed, _remembered(connection, inspections, originals.pseudonym_key))
        bad = [inspection for inspection in inspections if inspection.reason is not None]
        sound = [inspection for inspection in inspections if inspection.reason is None]
        good = _distinct(sound)
        known = {(row.source, row.sha256): row for row in tables.samples(connection, listed.sources)}
        further = _further_owners(sound, known, originals.pseudonym_key)
        shared_files.write(connection, further)
        todo = _todo(known, originals, good)
        done = total - len(todo) - len(bad)
        progress(done, total, f"{len(good) - len(todo)} are stored already")
        for batch in _batches(todo):
            list(pool.map(lambda entry: _store(entry, listed.where(entry.inspection.row), originals), batch))
            tables.write_samples(connection, [entry.sample for entry in batch])
            done += len(batch)
            progress(done, total, "images stored")
        for spoiled in _batches(bad):
            rows = list(
                pool.map(
                    lambda inspection: _set_aside(inspection, listed.where(inspection.row), originals),
                    spoiled,
                )
            )
            tables.write_quarantine(
                connection, list({(row.source, row.sha256): row for row in rows}.values())
            )
            done += len(spoiled)
            progress(done, total, "images quarantined")
    return IngestReport(
        ingested=len(todo),
        already=len(good) - len(todo),
        duplicates=len(inspections) - len(bad) - len(good),
        shared=len({(entry.source, entry.sha256) for entry in further}),
        quarantined=len(bad),
        forgotten=total - len(inspections),
        by_reason=dict(sorted(Counter(inspection.reason for inspection in bad if inspection.reason).items())),
        sources=listed.sources,
    )


def _agreed(listed: Manifest, inspections: Sequence[Inspection]) -> list[Inspection]:
    """Set aside files with two labels for one content, where a publisher has made that mistake.

    Raises:
        ManifestError: the writer of the manifest has made it; only reading the files could show it.
    """
    first: dict[tuple[str, str], Inspection] = {}
    problems, doubted = [], set()
    for inspection in inspections:
        if inspection.reason is None:
            identity = (inspection.row.source, inspection.sha256)
            contradictions = manifest.contradiction(
                first.setdefault(identity, inspection).row, inspection.row
            )
            problems += contradictions
            doubted |= {identity} if contradictions else set()
    if problems and listed.by_hand:
        raise manifest.refusal(listed.folder / listed.title, problems)
    detail = "the same file has another label elsewhere in the dataset"
    return [
        replace(inspection, reason="conflicting_label", detail=detail)
        if inspection.reason is None and (inspection.row.source, inspection.sha256) in doubted
        else inspection
        for inspection in inspections
    ]


def _distinct(good: Sequence[Inspection]) -> list[Inspection]:
    """Return one inspection for each content of a source."""
    first: dict[tuple[str, str], Inspection] = {}
    for inspection in good:
        first.setdefault((inspection.row.source, inspection.sha256), inspection)
    return list(first.values())


def _further_owners(sound: Sequence[Inspection], known: Mapping[Image, Sample], key: bytes) -> list[Owner]:
    """List the owners of the same files besides the one whom the catalog will name: the first of these rows."""
    named: dict[Image, Owner] = {}
    further = []
    for inspection in sound:
        image = inspection.row.source, inspection.sha256
        before = known.get(image)
        owners_of = [
            Owner(
                source=image[0],
                sha256=image[1],
                patient_pseudonym=inspection.patient,
                group_key=group_key(inspection, key),
            )
        ]
        if before is not None:
            patient, group = before.patient_pseudonym, before.group_key
            owners_of.append(replace(owners_of[0], patient_pseudonym=patient, group_key=group))
        first = named.setdefault(image, owners_of[0])
        further += [owner for owner in owners_of if owner != first]
    return further


def _todo(known: Mapping[Image, Sample], originals: Originals, good: Sequence[Inspection]) -> list[_Todo]:
    """Return what is missing in the catalog or the store, or differs."""
    stored = originals.present(RAW, (row.raw_key for row in known.values()))
    todo = []
    for inspection in good:
        sample = _sample(inspection, originals)
        before = known.get((sample.source, sample.sha256))
        absent = sample.raw_key not in stored
        if before is None or absent or not before.same_as(sample):
            todo.append(_Todo(inspection=inspection, sample=sample, upload=absent))
    return todo


def _sample(inspection: Inspection, originals: Originals) -> Sample:
    """Make the catalog's row; the manifest takes precedence, a DICOM header fills what it leaves open."""
    row, facts = inspection.row, inspection.facts
    age_years = row.age_years
    if age_years is None and row.age_range_years is None and "age" in facts:
        age_years = float(facts["age"])
    return Sample(
        source=row.source,
        sha256=inspection.sha256,
        label=row.label,
        source_label=row.source_label,
        patient_pseudonym=inspection.patient,
        group_key=group_key(inspection, originals.pseudonym_key),
        sex=row.sex or facts.get("sex"),
        age=None if age_years is None else min(age_years, deidentify.OLDEST_NAMED_YEARS),
        view=row.view or facts.get("view"),
        site=row.further.get("site"),
        license=row.license or "unknown",
        raw_key=originals.key_of(inspection.sha256),
        metadata={**_of_header(facts), **_metadata(row, originals)},
    )


def _of_header(facts: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in facts.items() if name not in ("sex", "age", "view")}


def _metadata(row: ManifestRow, originals: Originals) -> dict[str, str]:
    """Return harmless columns as they are, the others as one sealed text with a keyed hash to detect a change."""
    metadata = {name: value for name, value in row.further.items() if name in PLAIN_COLUMNS}
    if row.age_range_years is not None:
        low, high = row.age_range_years
        metadata["age_range"] = f"{low}-{'' if high is None else high}"
    private = {name: value for name, value in row.further.items() if name not in PLAIN_COLUMNS}
    if private:
        text = json.dumps(private, sort_keys=True)
        sealed = seal(text.encode(), originals.encryption_key, context=SEALED.encode())
        metadata[SEALED] = base64.b64encode(sealed).decode()
        metadata[f"{SEALED}_hash"] = keyed_hash(originals.pseudonym_key, "metadata", text)
    return metadata


def _store(todo: _Todo, where: str, originals: Originals) -> None:
    if not todo.upload:
        return
    blob = todo.inspection.row.file.read_bytes()
    if hashlib.sha256(blob).hexdigest() != todo.sample.sha256:
        raise IngestError(
            f"the file of {where} changed while it was being ingested: run the same command again"
        )
    originals.put(RAW, todo.sample.sha256, blob)


def _set_aside(inspection: Inspection, where: str, originals: Originals) -> Quarantined:
    """Keep the sealed file where there is one, and say why."""
    row = inspection.row
    object_key = None
    if inspection.sha256:
        object_key = originals.put(QUARANTINE, inspection.sha256, row.file.read_bytes())
    return Quarantined(
        source=row.source,
        sha256=inspection.sha256 or f"path:{keyed_hash(originals.pseudonym_key, 'path', row.path)}",
        stage="ingest",
        reason=inspection.reason or "",
        detail=f"{where}: {inspection.detail}",
        object_key=object_key,
        sample=None if object_key is None else asdict(_sample(inspection, originals)),
    )


def _remembered(connection: Connection, inspections: Sequence[Inspection], key: bytes) -> list[Inspection]:
    """Leave out the rows of erased patients."""
    marks = forgotten.erased_marks(connection)
    return [
        inspection
        for inspection in inspections
        if not forgotten.is_marked(marks, inspection.patient, inspection.sha256, key)
    ]


def _batches(rows: Sequence[T]) -> Iterator[Sequence[T]]:
    return (rows[start : start + BATCH_ROWS] for start in range(0, len(rows), BATCH_ROWS))
