"""Write de-identified copies of stored originals for use outside: PNG, and DICOM where the original is DICOM.

`jobs.ingest --export` calls `export`. A copy holds masked pixels and, as DICOM, the header that
`data.imaging.deidentify` leaves; names of files and folders are keyed hashes. The folder has a `manifest.csv` that
`jobs.ingest --source` reads again. Knows neither Ray nor models.
"""

import csv
import io
import os
from collections import Counter
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset

from cluster.progress import OnProgress, silent
from cluster.secrets import SecretError
from cluster.settings import Settings
from data.catalog import quarantine_review, tables
from data.catalog.originals import Originals
from data.catalog.tables import Sample
from data.imaging.deidentify import deidentify
from data.imaging.dicom import DICOM_ERRORS, MONOCHROME, explain, open_dicom
from data.imaging.errors import BadImageError
from data.imaging.preprocess import encode_png, sniff
from data.sandbox.decoder import Decoder
from data.sources.manifest import REQUIRED_COLUMNS

FURTHER_THREADS = 2
"""Beyond one a child: they fetch and write while every child decodes."""
BATCH_ROWS = 64
"""At least; a machine with many children gets more at a time, lest they wait for a batch's last image."""
BATCH_ROWS_A_CHILD = 16
NAME_DIGITS = 32
LOOKS = ("lateral", "not_an_xray", "inverted")
"""Reasons of `data.imaging.quality` that are no reason to withhold a copy: they say what a dataset is not made of."""


class ExportError(ValueError):
    """The folder cannot be written, or there is nothing to export; one line."""


@dataclass(frozen=True, kw_only=True)
class ExportReport:
    exported: int
    """Images written."""
    refused: dict[str, int]
    """Reason → number of images that cannot be decoded and have no copy."""
    folder: str


def export(
    settings: Settings,
    folder: Path,
    *,
    sources: Sequence[str] = (),
    dicom: bool = False,
    progress: OnProgress = silent,
) -> ExportReport:
    """Write a copy of every image of these sources (all when none is named), and a manifest last.

    Args:
        folder: is made; must be empty or absent, so that nothing old is taken for a copy.
        dicom: write DICOM beside the PNG where the original is DICOM.
    Raises:
        ExportError, CatalogError, ObjectStoreError, SecretError, SandboxError: what happened and what to do, in one
            line.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ExportError(f"{folder} is not an empty folder: name a new one")
    with tables.opened(settings) as connection:
        if unknown := sorted(set(sources) - set(tables.sources(connection))):
            raise ExportError(f"the catalog has no source {', '.join(unknown)}: nothing was written")
        samples = tables.samples(connection, sources)
        waived = quarantine_review.applied(connection, samples).waived
    if not samples:
        raise ExportError("the catalog holds no image of these sources: `jobs.ingest --source DIR` first")
    originals = Originals.of(settings)
    children = min(len(os.sched_getaffinity(0)), len(samples))
    size = max(BATCH_ROWS, children * BATCH_ROWS_A_CHILD)
    rows: list[dict[str, str]] = []
    refused: Counter[str] = Counter()
    with Decoder(children=children) as decoder, ThreadPoolExecutor(children + FURTHER_THREADS) as pool:

        def write(sample: Sample) -> str | None:
            released = waived.get((sample.source, sample.sha256), ())
            return _write(sample, folder, originals, decoder, dicom=dicom, waived=(*LOOKS, *released))

        for start in range(0, len(samples), size):
            batch = samples[start : start + size]
            for sample, reason in zip(batch, pool.map(write, batch), strict=True):
                if reason is None:
                    rows.append(_row(sample))
                else:
                    refused[reason] += 1
            progress(len(rows) + refused.total(), len(samples), f"images copied, {refused.total()} refused")
    folder.mkdir(parents=True, exist_ok=True)
    _write_manifest(folder / "manifest.csv", rows)
    return ExportReport(exported=len(rows), refused=dict(sorted(refused.items())), folder=str(folder))


def dicom_copy(
    blob: bytes, decoder: Decoder, *, key: bytes, patient: str, waived: Collection[str] = ()
) -> bytes:
    """Return a DICOM file that may leave: header after Annex E, text masked in the stored pixels, uncompressed.

    Colour becomes 8-bit grey, as everywhere here. Grey keeps its depth and its look-up tables.

    Raises:
        BadImageError: it holds no picture that we can decode.
    """
    stored_HW = decoder.stored(blob, waived=waived)
    try:
        clean = deidentify(open_dicom(blob, pixels=False), key=key, patient=patient)
    except DICOM_ERRORS as error:
        raise explain(error, len(blob)) from error
    if clean.PhotometricInterpretation not in MONOCHROME:
        clean.PhotometricInterpretation, clean.BitsStored = "MONOCHROME2", 8
        for keyword in ("PlanarConfiguration", "PixelPaddingValue", "PixelPaddingRangeLimit"):
            clean.pop(keyword, None)
    _put_pixels(clean, stored_HW)
    file = io.BytesIO()
    pydicom.dcmwrite(file, clean, enforce_file_format=True)
    return file.getvalue()


def _put_pixels(clean: Dataset, stored_HW: np.ndarray) -> None:
    """Store native little-endian pixels; the bits above the stored ones are the sign or 0."""
    wide = stored_HW.dtype.itemsize > 1
    clean.SamplesPerPixel = 1
    clean.Rows, clean.Columns = stored_HW.shape
    clean.BitsAllocated = 16 if wide else 8
    clean.BitsStored = min(int(clean.get("BitsStored", 16)), int(clean.BitsAllocated))
    clean.HighBit = clean.BitsStored - 1
    signed = stored_HW.dtype.kind == "i"
    clean.PixelRepresentation = int(signed)
    kind = ("<i2" if signed else "<u2") if wide else ("i1" if signed else "u1")
    pixels = stored_HW.astype(kind).tobytes()
    clean.PixelData = pixels + bytes(len(pixels) % 2)
    clean["PixelData"].VR = "OW" if wide else "OB"


def _write(
    sample: Sample,
    folder: Path,
    originals: Originals,
    decoder: Decoder,
    *,
    dicom: bool,
    waived: Collection[str],
) -> str | None:
    """Write one image; return the reason when it has no copy."""
    try:
        blob = originals.get(sample.raw_key)
        png = encode_png(decoder.decode(blob, waived=waived).shown_HW)
        copy = None
        if dicom and sniff(blob) == "dicom":
            copy = dicom_copy(
                blob, decoder, key=originals.pseudonym_key, patient=sample.patient_pseudonym, waived=waived
            )
    except FileNotFoundError:
        return "missing_original"
    except SecretError:
        return "sealed"
    except BadImageError as error:
        return error.reason
    target = folder / _path(sample)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(png)
        if copy is not None:
            target.with_suffix(".dcm").write_bytes(copy)
    except OSError as error:
        raise ExportError(
            f"cannot write into {folder}: {error.strerror}; free space or name another folder"
        ) from error
    return None


def _path(sample: Sample) -> str:
    """Return a copy's path: a patient's images share a folder; both names are keyed hashes."""
    name = sample.raw_key.rsplit("/", 1)[-1]
    return f"{sample.patient_pseudonym[:NAME_DIGITS]}/{name[:NAME_DIGITS]}.png"


def _row(sample: Sample) -> dict[str, str]:
    return {
        "path": _path(sample),
        "label": sample.label,
        "source": sample.source,
        "patient_id": sample.patient_pseudonym,
        "sex": sample.sex or "",
        "age": "" if sample.age is None else f"{sample.age:g}",
        "view": sample.view or "",
        "license": sample.license,
        "sha256": "",
        "group_id": sample.group_key,
    }


def _write_manifest(path: Path, rows: Sequence[dict[str, str]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, [*REQUIRED_COLUMNS, "group_id"])
        writer.writeheader()
        writer.writerows(rows)
