"""Inspect one listed file: its hash, its type, its patient, and why it cannot be stored, if so.

`data.catalog.ingest` inspects every file with it before anything is written. Knows no store and no database.
"""

import hashlib
import os
import stat
from dataclasses import dataclass, field, replace

from cluster.secrets import keyed_hash
from data.imaging import deidentify
from data.imaging.dicom import DICOM_ERRORS, open_dicom
from data.imaging.errors import BadImageError
from data.imaging.preprocess import sniff
from data.sources.manifest import ManifestRow

MAX_FILE_BYTES = 256 * 2**20
"""A larger file is quarantined unread: a 64-megapixel detector at 16 bits writes half of that."""


@dataclass(frozen=True, kw_only=True)
class Inspection:
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


def inspect(row: ManifestRow, key: bytes) -> Inspection:
    """Read one file, hash it, find its patient, and say why it cannot be used, if so."""
    unread = Inspection(row=row, sha256="", patient=_pseudonym(row, row.patient_id, "", key))
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
        seen = _inspect_dicom(row, sha256, blob, key)
    else:
        seen = Inspection(row=row, sha256=sha256, patient=_pseudonym(row, row.patient_id, sha256, key))
    if row.sha256 not in (None, sha256):
        return replace(seen, reason="checksum", detail="its SHA-256 is not the manifest's")
    if kind is None:
        detail = f"{len(blob)} bytes that are neither PNG, JPEG nor DICOM"
        return replace(seen, reason="unknown_type", detail=detail)
    return seen


def _inspect_dicom(row: ManifestRow, sha256: str, blob: bytes, key: bytes) -> Inspection:
    """Read the facts of a DICOM header once it is de-identified, and the patient where the manifest names none.

    A header that cannot be read tells nothing; `etl` will say why the file cannot be used.
    """
    try:
        header = open_dicom(blob, pixels=False)
        patient = _pseudonym(row, row.patient_id or deidentify.patient_of(header), sha256, key)
        clean = deidentify.deidentify(header, key=key, patient=patient)
        return Inspection(row=row, sha256=sha256, patient=patient, facts=deidentify.facts(clean))
    except (BadImageError, *DICOM_ERRORS):
        return Inspection(row=row, sha256=sha256, patient=_pseudonym(row, row.patient_id, sha256, key))


def _pseudonym(row: ManifestRow, patient_id: str | None, sha256: str, key: bytes) -> str:
    if patient_id is None:
        return keyed_hash(key, "unknown patient", row.source, sha256)
    return keyed_hash(key, "patient", row.source, patient_id)


def group_key(look: Inspection, key: bytes) -> str:
    if look.row.group_id is not None:
        return keyed_hash(key, "group", look.row.group_id)
    return keyed_hash(key, "group of a patient", look.patient)
