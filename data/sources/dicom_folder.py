"""A folder of DICOM files without a manifest: the headers tell patient, sex, age and view, `labels.csv` the class.

Only the tags in `TAGS` are ever read; they leave this file as fields of a row, which `ingest` turns into pseudonyms,
and never as part of a message: neither do paths, since folders are often called after patients.
"""

import csv
import io
import os
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

import pydicom
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset, read_preamble
from pydicom.uid import DeflatedExplicitVRLittleEndian, MediaStorageDirectoryStorage

from data.imaging.dicom import DICOM_ERRORS, raw_text
from data.sources import layout
from data.sources.dataset_card import Card
from data.sources.manifest import (
    OLDEST_YEARS,
    SEXES,
    Manifest,
    ManifestError,
    ManifestRow,
    Problem,
    read_age,
    refusal,
    unknown_label,
    wrong_path,
)
from data.taxonomy import taxonomy

LABELS = "labels.csv"
UID_COLUMNS = ("sop_instance_uid", "sopinstanceuid")
TAGS = [
    *("SOPInstanceUID", "PatientID", "PatientSex", "PatientAge", "PatientBirthDate", "StudyDate"),
    *("ViewPosition", "Modality", "BodyPartExamined", "PhotometricInterpretation"),
]
DATE = re.compile(r"(\d{4})(\d{2})(\d{2})")
THREADS = 8
CARD = Card(
    name="dicom-folder",
    title="a folder of DICOM files",
    license="unknown, unless labels.csv has a column license",
    conditions="Your own files: their owner decides.",
    citation="none",
    homepage="",
    layout=(
        f"DICOM files in any folders, and {LABELS} with the columns label and path (relative to it) or "
        "sop_instance_uid; source, license and group_id if you like"
    ),
    labels={},
)


@dataclass(frozen=True, kw_only=True)
class Label:
    """One row of labels.csv."""

    line: int
    label: str
    """A name of the taxonomy."""
    source_label: str
    path: str
    """Relative to labels.csv, normalised; empty where the UID tells the file."""
    uid: str
    source: str
    license: str
    group_id: str | None


@dataclass(frozen=True, kw_only=True)
class Image:
    """One DICOM file in the folder."""

    file: Path
    header: Dataset | None
    """Only `TAGS`; None where it cannot be read."""


def list_images(folder: Path) -> Manifest:
    """List the DICOM files that labels.csv labels.

    Raises:
        ManifestError: there is no labels.csv, it cannot be used, or it leaves a DICOM file without a label.
    """
    root = Path(os.path.realpath(folder))
    if not root.is_dir():
        raise layout.refused(CARD, folder, "it is not a folder" if root.exists() else "it does not exist")
    labels = _labels(root)
    files = [file for file in _files(root) if file != root / LABELS]
    with ThreadPoolExecutor(THREADS) as pool:
        images = [image for image in pool.map(_look, files) if image is not None]
    if not images:
        raise layout.refused(CARD, folder, "no DICOM image is in it")
    by_path = {label.path: label for label in labels if label.path}
    by_uid = {label.uid: label for label in labels if label.uid}
    matched = [
        (image, by_path.get(_path(root, image)) or by_uid.get(raw_text(image.header, "SOPInstanceUID")))
        for image in images
    ]
    unlabelled = sum(
        label is None and raw_text(image.header, "SOPInstanceUID") != "" for image, label in matched
    )
    if unlabelled:
        raise ManifestError(
            f"{root / LABELS}: {unlabelled} of {len(images)} DICOM files in the folder have no row: add one for "
            "each, by path or sop_instance_uid, or move the files away. Nothing was stored"
        )
    rows = [_row(root, label, image) for image, label in matched if label is not None]
    used = {row.line for row in rows}
    unused = [label for label in labels if label.line not in used]
    counts = {
        "files that are no DICOM images, not read": len(files) - len(images),
        "DICOM files without a readable UID or a row by path, left out": len(images) - len(rows),
        f"rows of {LABELS} with a UID that no file has": sum(not label.path for label in unused),
    }
    rows += [_row(root, label, None) for label in unused if label.path]
    return Manifest(
        folder=root,
        rows=tuple(sorted(rows, key=lambda row: (row.line, row.path))),
        title=LABELS,
        notes=tuple(f"{text}: {number}" for text, number in counts.items() if number),
    )


def _labels(root: Path) -> list[Label]:
    """Read the rows of labels.csv; problems are worded by their lines, as those of a manifest."""
    file = root / LABELS
    if not file.is_file():
        raise ManifestError(
            f"there is no {LABELS} in {root}: a DICOM header does not say what the image shows. Write one with the "
            "columns label and path (relative to it) or sop_instance_uid. Nothing was stored"
        )
    try:
        reader = csv.DictReader(io.StringIO(file.read_bytes().decode("utf-8-sig"), newline=""), strict=True)
        names = [name.strip().lower() for name in reader.fieldnames or ()]
        reader.fieldnames = names
        records = [
            (reader.line_num, {name: (value or "").strip() for name, value in cells.items() if name})
            for cells in reader
        ]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ManifestError(f"{file} is no CSV in UTF-8: save it as such. Nothing was stored") from error
    uid_column = next((name for name in UID_COLUMNS if name in names), None)
    if "label" not in names or not (uid_column or "path" in names):
        raise ManifestError(
            f"{file}: line 1 needs the columns label and path or sop_instance_uid; it has {', '.join(names)}. "
            "Nothing was stored"
        )
    problems = []
    labels: dict[str, Label] = {}
    for line, cells in records:
        path, uid = cells.get("path", ""), cells.get(uid_column or "", "")
        label = taxonomy().translate(cells["label"])
        key = f"path {PurePosixPath(path)}" if path else f"uid {uid}"
        wrong = [
            None if label else unknown_label(cells["label"]) if cells["label"] else "no label",
            wrong_path(str(root), path) if path else None if uid else "neither a path nor a UID",
            f"it names the same file as line {labels[key].line}" if key in labels else None,
        ]
        problems += [Problem(line=line, text=text) for text in wrong if text]
        labels[key] = Label(
            line=line,
            label=label or "",
            source_label=cells["label"],
            path=str(PurePosixPath(path)) if path else "",
            uid="" if path else uid,
            source=cells.get("source") or CARD.name,
            license=cells.get("license") or "unknown",
            group_id=cells.get("group_id") or None,
        )
    if problems:
        raise refusal(file, problems)
    return list(labels.values())


def _files(root: Path) -> list[Path]:
    """List every file below the folder, by path; links are not followed."""
    files = []
    for folder, inner, names in os.walk(root):
        inner[:] = [name for name in inner if not layout.is_junk(name)]
        files += [Path(folder, name) for name in names if not layout.is_junk(name)]
    return sorted(file for file in files if file.is_file() and not file.is_symlink())


def _look(file: Path) -> Image | None:
    """Return the image in a file, None where it is none: no DICOM, or a DICOMDIR."""
    try:
        with file.open("rb") as stream:
            if stream.read(132)[128:] != b"DICM":
                return None
            stream.seek(0)
            return _read(file, stream)
    except (*DICOM_ERRORS, MemoryError):  # the decoder will say what is wrong with the file
        return Image(file=file, header=None)


def _read(file: Path, stream: BinaryIO) -> Image | None:
    """Read the header; a file that is deflated as a whole is not inflated only for that."""
    read_preamble(stream, force=False)
    meta = read_dataset(stream, False, True, stop_when=lambda tag, vr, length: tag >> 16 != 2)
    if raw_text(meta, "MediaStorageSOPClassUID") == MediaStorageDirectoryStorage:
        return None
    if raw_text(meta, "TransferSyntaxUID") == DeflatedExplicitVRLittleEndian:
        return Image(file=file, header=None)
    stream.seek(0)
    return Image(file=file, header=pydicom.dcmread(stream, stop_before_pixels=True, specific_tags=list(TAGS)))


def _path(root: Path, image: Image) -> str:
    return image.file.relative_to(root).as_posix()


def _row(root: Path, label: Label, image: Image | None) -> ManifestRow:
    """Make the row of one image, or of one that only labels.csv names."""
    header = image.header if image is not None else None
    path = _path(root, image) if image is not None else label.path
    age = read_age(raw_text(header, "PatientAge")) or (None, None)
    further = {
        "modality": "Modality",
        "body_part": "BodyPartExamined",
        "photometric": "PhotometricInterpretation",
    }
    return ManifestRow(
        line=label.line,
        path=path,
        file=root / path,
        label=label.label,
        source_label=label.source_label,
        source=label.source,
        patient_id=raw_text(header, "PatientID") or None,
        sex=SEXES.get(raw_text(header, "PatientSex").lower()),
        age_years=age[0] if age[0] is not None else _age_between(header),
        age_range_years=age[1],
        view=raw_text(header, "ViewPosition") or None,
        license=label.license,
        sha256=None,
        group_id=label.group_id,
        further={name: text for name, tag in further.items() if (text := raw_text(header, tag))},
    )


def _age_between(header: Dataset | None) -> float | None:
    """Return whole years from birth to study, None where a date is missing or makes no sense."""
    born, seen = (DATE.fullmatch(raw_text(header, tag)) for tag in ("PatientBirthDate", "StudyDate"))
    if born is None or seen is None:
        return None
    (year, month, day), (then_year, then_month, then_day) = (
        tuple(map(int, match.groups())) for match in (born, seen)
    )
    years = then_year - year - ((then_month, then_day) < (month, day))
    return float(years) if 0 <= years <= OLDEST_YEARS else None
