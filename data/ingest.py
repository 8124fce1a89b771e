"""From the images that a source lists to sealed originals in the object store and rows in the catalog.

`jobs.ingest` and `jobs.pipeline` call `ingest` where the folder is. An object is written before its row, so a
run that was cut short leaves nothing that the next one trips over: it stores what is missing. Knows no Ray.
"""

import base64
import hashlib
import json
import os
import stat
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from cluster.secrets import keyed_hash, seal
from cluster.settings import Settings
from data import catalog, deidentify, forgotten, manifest, owners
from data.bad_image import BadImageError
from data.catalog import SEALED, Connection, Quarantined, Sample
from data.dicom import DICOM_ERRORS, open_dicom
from data.manifest import Manifest, ManifestRow
from data.originals import QUARANTINE, RAW, Originals
from data.owners import Image, Owner
from data.preprocess import sniff

T = TypeVar("T")
Progress = Callable[[int, int, str], None]

THREADS = 8
BATCH_ROWS = 256
MAX_FILE_BYTES = 256 * 2**20
"""A larger file is quarantined unread: a 64-megapixel detector at 16 bits writes half of that."""
PLAIN_COLUMNS = frozenset(
    {"site", "source_label", "license_status", "width", "height", "orig_width", "orig_height"}
    | {"modality", "body_part", "photometric", "bits", "transfer_syntax", "rows", "cols", "derived"}
    | {"published_split", "part", "origin", "boxes"}
    | {"kind", "seed", "noise", "drift", "bias", "shortcut", "synthetic"}
)
"""Further columns that cannot identify anybody, stored readable; every other one is stored sealed."""


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
    """Files that are said to be of more than one patient or group, in these rows or in earlier ones: kept once, all of
    them on one side of every split."""
    quarantined: int
    """Rows whose file cannot be used."""
    forgotten: int
    """Rows of patients that were forgotten; nothing of them was stored."""
    by_reason: dict[str, int]
    """Reason → number of quarantined rows."""
    sources: tuple[str, ...]
    """Sources that the manifest names."""


@dataclass(frozen=True, kw_only=True)
class _Look:
    """What one file turned out to be."""

    row: ManifestRow
    sha256: str
    """Of the content; empty when there is none."""
    patient: str
    """Pseudonym."""
    facts: dict[str, str] = field(default_factory=dict)
    """Of a DICOM header, after de-identification."""
    reason: str | None = None
    detail: str = ""


@dataclass(frozen=True, kw_only=True)
class _Todo:
    look: _Look
    sample: Sample
    upload: bool
    """Whether the original is missing too, or only its row is."""


def ingest(listed: Manifest | Path, settings: Settings, progress: Progress | None = None) -> IngestReport:
    """Store every listed image that is not stored yet; safe to repeat.

    Args:
        listed: what a source of `data.sources` lists; a folder stands for its `manifest.csv`.
    Raises:
        ManifestError: the manifest cannot be used; nothing was stored.
        IngestError, CatalogError, ObjectStoreError, SecretError: what happened and what to do, in one line.
    """
    tell = progress or (lambda done, total, note: None)
    if isinstance(listed, Path):
        listed = manifest.read(listed)
    originals = Originals.of(settings)
    total = len(listed.rows)
    tell(0, total, f"reading {total} files")
    with ThreadPoolExecutor(THREADS) as pool, catalog.opened(settings) as connection:
        looks = list(pool.map(lambda row: _look(row, originals.pseudonym_key), listed.rows))
        if all(look.reason == "missing" for look in looks):
            raise IngestError(
                f"none of the {total} files that {listed.folder / listed.title} names exists; "
                "paths are relative to the manifest"
            )
        looks = _agreed(listed, _remembered(connection, looks, originals.pseudonym_key))
        bad = [look for look in looks if look.reason is not None]
        sound = [look for look in looks if look.reason is None]
        good = _distinct(sound)
        known = {(row.source, row.sha256): row for row in catalog.samples(connection, listed.sources)}
        further = _further_owners(sound, known, originals.pseudonym_key)
        owners.write(connection, further)
        todo = _todo(known, originals, good)
        done = total - len(todo) - len(bad)
        tell(done, total, f"{len(good) - len(todo)} are stored already")
        for batch in _batches(todo):
            list(pool.map(lambda one: _store(one, listed.where(one.look.row), originals), batch))
            catalog.write_samples(connection, [one.sample for one in batch])
            done += len(batch)
            tell(done, total, "images stored")
        for spoiled in _batches(bad):
            rows = list(pool.map(lambda look: _set_aside(look, listed.where(look.row), originals), spoiled))
            catalog.write_quarantine(
                connection, list({(row.source, row.sha256): row for row in rows}.values())
            )
            done += len(spoiled)
            tell(done, total, "images quarantined")
    return IngestReport(
        ingested=len(todo),
        already=len(good) - len(todo),
        duplicates=len(looks) - len(bad) - len(good),
        shared=len({(one.source, one.sha256) for one in further}),
        quarantined=len(bad),
        forgotten=total - len(looks),
        by_reason=dict(sorted(Counter(look.reason for look in bad if look.reason).items())),
        sources=listed.sources,
    )


def _look(row: ManifestRow, key: bytes) -> _Look:
    """Read one file, hash it, say whose it is, and why it cannot be used, if so."""
    unread = _Look(row=row, sha256="", patient=_patient(row, row.patient_id, "", key))
    try:
        info = row.file.stat()
        if not stat.S_ISREG(info.st_mode):
            return replace(unread, reason="not_a_file", detail="the path is not a file")
        if info.st_size > MAX_FILE_BYTES:
            return replace(unread, reason="too_large", detail=f"the file has {info.st_size} bytes")
        blob = row.file.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return replace(unread, reason="missing", detail="the file does not exist")
    except OSError as error:
        return replace(unread, reason="unreadable", detail=os.strerror(error.errno or 0))
    if not blob:
        return replace(unread, reason="empty", detail="the file has 0 bytes")
    sha256 = hashlib.sha256(blob).hexdigest()
    kind = sniff(blob)
    if kind == "dicom":
        seen = _look_inside(row, sha256, blob, key)
    else:
        seen = _Look(row=row, sha256=sha256, patient=_patient(row, row.patient_id, sha256, key))
    if row.sha256 not in (None, sha256):
        return replace(seen, reason="checksum", detail="its SHA-256 is not the manifest's")
    if kind is None:
        detail = f"{len(blob)} bytes that are neither PNG, JPEG nor DICOM"
        return replace(seen, reason="unknown_type", detail=detail)
    return seen


def _look_inside(row: ManifestRow, sha256: str, blob: bytes, key: bytes) -> _Look:
    """What a DICOM header tells once it is de-identified, and whose image it is where the manifest is silent.

    A header that cannot be read tells nothing; `etl` will say why the file cannot be used.
    """
    try:
        header = open_dicom(blob, pixels=False)
        patient = _patient(row, row.patient_id or deidentify.patient_of(header), sha256, key)
        clean = deidentify.deidentify(header, key=key, patient=patient)
        return _Look(row=row, sha256=sha256, patient=patient, facts=deidentify.facts(clean))
    except (BadImageError, *DICOM_ERRORS):
        return _Look(row=row, sha256=sha256, patient=_patient(row, row.patient_id, sha256, key))


def _agreed(listed: Manifest, looks: Sequence[_Look]) -> list[_Look]:
    """The looks, those with two labels for one content set aside when a publisher has made that mistake.

    Raises:
        ManifestError: the writer of the manifest has made it; only reading the files could show it.
    """
    first: dict[tuple[str, str], _Look] = {}
    problems, doubted = [], set()
    for look in looks:
        if look.reason is None:
            identity = (look.row.source, look.sha256)
            found = manifest.contradiction(first.setdefault(identity, look).row, look.row)
            problems += found
            doubted |= {identity} if found else set()
    if problems and listed.by_hand:
        raise manifest.refusal(listed.folder / listed.title, problems)
    detail = "the same file has another label elsewhere in the dataset"
    return [
        replace(look, reason="conflicting_label", detail=detail)
        if look.reason is None and (look.row.source, look.sha256) in doubted
        else look
        for look in looks
    ]


def _distinct(good: Sequence[_Look]) -> list[_Look]:
    """One look for each content of a source."""
    first: dict[tuple[str, str], _Look] = {}
    for look in good:
        first.setdefault((look.row.source, look.sha256), look)
    return list(first.values())


def _further_owners(sound: Sequence[_Look], known: Mapping[Image, Sample], key: bytes) -> list[Owner]:
    """Whose the same files are said to be besides whom the catalog will name: the first of these rows."""
    named: dict[Image, Owner] = {}
    further = []
    for look in sound:
        image = look.row.source, look.sha256
        before = known.get(image)
        said = [
            Owner(
                source=image[0], sha256=image[1], patient_pseudonym=look.patient, group_key=_group(look, key)
            )
        ]
        if before is not None:
            who, group = before.patient_pseudonym, before.group_key
            said.append(replace(said[0], patient_pseudonym=who, group_key=group))
        first = named.setdefault(image, said[0])
        further += [one for one in said if one != first]
    return further


def _todo(known: Mapping[Image, Sample], originals: Originals, good: Sequence[_Look]) -> list[_Todo]:
    """What is missing in the catalog or the store, or differs."""
    patients = [look.patient for look in good]
    groups = [_group(look, originals.pseudonym_key) for look in good]
    stored = originals.present(RAW, (row.raw_key for row in known.values()))
    todo = []
    for look, patient, group in zip(good, patients, groups, strict=True):
        sample = _sample(look, patient, group, originals)
        before = known.get((sample.source, sample.sha256))
        absent = sample.raw_key not in stored
        if before is None or absent or not before.same_as(sample):
            todo.append(_Todo(look=look, sample=sample, upload=absent))
    return todo


def _patient(row: ManifestRow, patient_id: str | None, sha256: str, key: bytes) -> str:
    if patient_id is None:
        return keyed_hash(key, "unknown patient", row.source, sha256)
    return keyed_hash(key, "patient", row.source, patient_id)


def _group(look: _Look, key: bytes) -> str:
    if look.row.group_id is not None:
        return keyed_hash(key, "group", look.row.group_id)
    return keyed_hash(key, "group of a patient", look.patient)


def _sample(look: _Look, patient: str, group: str, originals: Originals) -> Sample:
    """The manifest's word counts; what it leaves open, a DICOM header may tell."""
    row, facts = look.row, look.facts
    age_years = row.age_years
    if age_years is None and row.age_range_years is None and "age" in facts:
        age_years = float(facts["age"])
    return Sample(
        source=row.source,
        sha256=look.sha256,
        label=row.label,
        source_label=row.source_label,
        patient_pseudonym=patient,
        group_key=group,
        sex=row.sex or facts.get("sex"),
        age=None if age_years is None else min(age_years, deidentify.OLDEST_NAMED_YEARS),
        view=row.view or facts.get("view"),
        site=row.further.get("site"),
        license=row.license or "unknown",
        raw_key=originals.key_of(look.sha256),
        metadata={**_of_header(facts), **_metadata(row, originals)},
    )


def _of_header(facts: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in facts.items() if name not in ("sex", "age", "view")}


def _metadata(row: ManifestRow, originals: Originals) -> dict[str, str]:
    """Harmless columns as they are, the others as one sealed text with a keyed hash to tell a change by."""
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
    blob = todo.look.row.file.read_bytes()
    if hashlib.sha256(blob).hexdigest() != todo.sample.sha256:
        raise IngestError(
            f"the file of {where} changed while it was being ingested: run the same command again"
        )
    originals.put(RAW, todo.sample.sha256, blob)


def _set_aside(look: _Look, where: str, originals: Originals) -> Quarantined:
    """Keep the sealed file where there is one, and say why."""
    row = look.row
    object_key = None
    if look.sha256:
        object_key = originals.put(QUARANTINE, look.sha256, row.file.read_bytes())
    return Quarantined(
        source=row.source,
        sha256=look.sha256 or f"path:{keyed_hash(originals.pseudonym_key, 'path', row.path)}",
        stage="ingest",
        reason=look.reason or "",
        detail=f"{where}: {look.detail}",
        object_key=object_key,
        sample=None if object_key is None else asdict(_own_sample(look, originals)),
    )


def _own_sample(look: _Look, originals: Originals) -> Sample:
    """The row that the image would have, for a reviewer who releases it and for forgetting its patient."""
    return _sample(look, look.patient, _group(look, originals.pseudonym_key), originals)


def _remembered(connection: Connection, looks: Sequence[_Look], key: bytes) -> list[_Look]:
    """Without the rows of patients that were forgotten."""
    marks = forgotten.known(connection)
    return [look for look in looks if not forgotten.is_marked(marks, look.patient, look.sha256, key)]


def _batches(rows: Sequence[T]) -> Iterator[Sequence[T]]:
    return (rows[start : start + BATCH_ROWS] for start in range(0, len(rows), BATCH_ROWS))
