"""Images for the ETL benchmarks: drawn from a seed, each different, stored as `ingest` stores a folder's."""

import io
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pydicom
from PIL import Image
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian

from cluster.settings import Settings
from data.catalog.ingest import ingest
from data.taxonomy import taxonomy

BATCH = 500
"""Images on the disk at a time."""

Draw = Callable[[int], bytes]


def grey_HW(seed: int, side: int, depth: int) -> np.ndarray:
    """Draw bright and dark where a chest film has them, structure at all scales and some noise, 0 to `depth`; about
    as hard to compress as a radiograph.
    """
    random = np.random.default_rng(seed)
    down_H1, across_1W = np.linspace(-1, 1, side)[:, None], np.linspace(-1, 1, side)[None]
    body_HW = np.clip(2.2 - 1.8 * np.hypot(across_1W, 0.6 * down_H1), 0, 1)
    film_HW = 0.08 + 0.4 * body_HW * (0.5 + 1 / (1 + np.square(across_1W / 0.2)))
    coarse = Image.fromarray(random.uniform(-0.1, 0.1, (side // 16, side // 16)).astype(np.float32))
    smooth_HW = film_HW + np.asarray(coarse.resize((side, side), Image.Resampling.BICUBIC))
    tile_HW = random.normal(0, 0.01, (side // 4, side // 4)).astype(np.float32)
    return np.clip((smooth_HW + np.tile(tile_HW, (4, 4))) * depth, 0, depth)


def jpeg(seed: int, side: int = 1024) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(grey_HW(seed, side, 255).astype(np.uint8)).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def small_jpeg(seed: int) -> bytes:
    return jpeg(seed, 128)


def dicom(seed: int, side: int = 1024) -> bytes:
    """Draw a 12-bit digital radiograph with a window, uncompressed."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = DigitalXRayImageStorageForPresentation
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPInstanceUID = f"2.25.{seed + 1}"
    file = io.BytesIO()
    data = FileDataset(file, {}, file_meta=meta, preamble=b"\0" * 128)
    data.SOPClassUID, data.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    data.Modality, data.PatientID, data.BodyPartExamined = "DX", f"BENCH{seed}", "CHEST"
    data.Rows = data.Columns = side
    data.SamplesPerPixel, data.PixelRepresentation, data.PhotometricInterpretation = 1, 0, "MONOCHROME2"
    data.BitsAllocated, data.BitsStored, data.HighBit = 16, 12, 11
    data.WindowCenter, data.WindowWidth = 2048, 3800
    data.PixelData = grey_HW(seed, side, 4095).astype("<u2").tobytes()
    pydicom.dcmwrite(file, data, enforce_file_format=True)
    return file.getvalue()


def store(settings: Settings, source: str, draw: Draw, images: int) -> None:
    """Draw and ingest them, some at a time; every patient has two."""
    for start in range(0, images, BATCH):
        with tempfile.TemporaryDirectory(prefix="raydiology-bench-") as folder:
            numbers = range(start, min(start + BATCH, images))
            rows = _write(Path(folder), source, draw, numbers)
            head = "path,label,source,patient_id,sex,age,view,license,sha256"
            (Path(folder) / "manifest.csv").write_text("\n".join([head, *rows]) + "\n")
            ingest(Path(folder), settings)


def _write(folder: Path, source: str, draw: Draw, numbers: range) -> Iterator[str]:
    labels = taxonomy().names
    with ThreadPoolExecutor() as pool:
        for nth, blob in zip(numbers, pool.map(draw, numbers), strict=True):
            (folder / str(nth)).write_bytes(blob)
            yield f"{nth},{labels[nth % len(labels)]},{source},p{nth // 2},F,50,PA,CC0-1.0,"
