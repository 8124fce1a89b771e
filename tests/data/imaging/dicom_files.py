"""DICOM files written by the tests, and the brightness that each of their values must become."""

import io
import math

import numpy as np
import pydicom
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import ExplicitVRBigEndian as BigEndian
from pydicom.uid import ExplicitVRLittleEndian as Explicit
from pydicom.uid import (
    SecondaryCaptureImageStorage,
)


def wave(height: int = 40, width: int = 48, top: int = 4095) -> np.ndarray:
    """Values that jump, so that a swapped byte, a dropped bit or a shifted row shows."""
    rows, columns = np.mgrid[0:height, 0:width]
    return ((rows * 71 + columns * 53) % (top + 1)).astype(np.uint16)


def dicom(
    stored: np.ndarray,
    *,
    syntax: str = Explicit,
    bits: int = 12,
    frames: list[bytes] | None = None,
    **fields: object,
) -> bytes:
    """A file with these stored values, or these compressed frames, and further fields."""
    data = FileDataset("", {}, file_meta=FileMetaDataset(), preamble=bytes(128))
    data.file_meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    data.file_meta.MediaStorageSOPInstanceUID = "2.25.1"
    data.file_meta.TransferSyntaxUID = syntax
    data.SOPClassUID, data.SOPInstanceUID, data.PatientName = (
        SecondaryCaptureImageStorage,
        "2.25.1",
        "DOE^JANE",
    )
    data.Rows, data.Columns = stored.shape[:2]
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.PixelRepresentation = int(stored.dtype.kind == "i")
    data.BitsAllocated = 8 * stored.dtype.itemsize
    data.BitsStored, data.HighBit = bits, bits - 1
    for name, value in fields.items():
        setattr(data, name, value)
    if frames is not None:
        data.PixelData = encapsulate(frames)
        data["PixelData"].is_undefined_length = True
    else:
        data.PixelData = stored.astype(
            stored.dtype.newbyteorder(">" if syntax == BigEndian else "<")
        ).tobytes()
    data["PixelData"].VR = "OW" if stored.dtype.itemsize == 2 else "OB"
    file = io.BytesIO()
    pydicom.dcmwrite(file, data, enforce_file_format=True)
    return file.getvalue()


def ramp(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """low..high → 0..255, one pixel after the other."""
    flat = [
        int(min(255.0, max(0.0, (v - low) * (255 / (high - low)) + 0.5))) for v in values.ravel().tolist()
    ]
    return np.array(flat, np.uint8).reshape(values.shape)


def by_percentile(values: np.ndarray) -> np.ndarray:
    """What is shown without a window: from the 0.1st to the 99.9th percentile."""
    ordered = sorted(values.ravel().tolist())
    low, high = (ordered[max(0, math.ceil(share * len(ordered)) - 1)] for share in (0.001, 0.999))
    return ramp(values, low, high)
