"""`data.privacy.export.dicom_copy`: whichever bits of its cell a pixel lies in, the copy has its value and says
where it lies.

That nothing of the patient comes through is held in `test_deidentify.py`.
"""

import io
from collections.abc import Iterator

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import (
    DigitalXRayImageStorageForPresentation,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    RLELossless,
)

from data.imaging.dicom import decode_dicom
from data.imaging.errors import BadImageError
from data.privacy.export import dicom_copy
from data.sandbox.decoder import Decoder
from tests.planted import burned

SOFT_HW = burned(" ", 3)[0].astype(np.int64)
"""12 bits, without text: nothing in it is masked."""


@pytest.fixture(scope="module")
def decoder() -> Iterator[Decoder]:
    with Decoder() as decoder:
        yield decoder


def cells(values: np.ndarray, allocated: int, stored: int, high: int, kind: str = "u") -> np.ndarray:
    """Values in the bits that end at `high`; all others hold an overlay, or whatever it is."""
    lowest, ones = high + 1 - stored, (1 << stored) - 1
    beside = np.random.default_rng(0).integers(0, 1 << allocated, values.shape) & ~(ones << lowest)
    return (((values & ones) << lowest) | beside).astype(f"u{allocated // 8}").view(f"{kind}{allocated // 8}")


def dicom(
    cells: np.ndarray, stored: int, high: int, syntax: str = ExplicitVRLittleEndian, **fields: object
) -> bytes:
    data = FileDataset("", {}, file_meta=FileMetaDataset(), preamble=bytes(128))
    data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = DigitalXRayImageStorageForPresentation
    data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = "2.25.1"
    data.file_meta.TransferSyntaxUID = syntax
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.PixelRepresentation = int(cells.dtype.kind == "i")
    data.Rows, data.Columns = cells.shape
    data.BitsAllocated, data.BitsStored, data.HighBit = 8 * cells.dtype.itemsize, stored, high
    for name, value in fields.items():
        setattr(data, name, value)
    data.PixelData = cells.astype(
        cells.dtype.newbyteorder(">" if syntax == ExplicitVRBigEndian else "<")
    ).tobytes()
    data["PixelData"].VR = "OB" if data.BitsAllocated == 8 else "OW"
    file = io.BytesIO()
    pydicom.dcmwrite(file, data, enforce_file_format=True)
    return file.getvalue()


def copy_of(blob: bytes, decoder: Decoder) -> bytes:
    return dicom_copy(blob, decoder, key=bytes(32), patient="a" * 64)


def opened(blob: bytes) -> Dataset:
    return pydicom.dcmread(io.BytesIO(blob))


@pytest.mark.parametrize(
    ("allocated", "stored", "high", "kind", "syntax"),
    [
        (16, 12, 11, "u", ExplicitVRLittleEndian),
        (16, 12, 15, "u", ExplicitVRLittleEndian),
        (16, 12, 13, "u", ExplicitVRLittleEndian),
        (16, 12, 15, "u", ExplicitVRBigEndian),
        (16, 12, 14, "i", ExplicitVRLittleEndian),
        (8, 6, 7, "u", ExplicitVRLittleEndian),
        (32, 16, 20, "u", ExplicitVRLittleEndian),
    ],
)
def test_a_copy_has_the_stored_values_in_its_lowest_bits_and_shows_the_same_picture(
    decoder: Decoder, allocated: int, stored: int, high: int, kind: str, syntax: str
) -> None:
    values_HW = np.left_shift(SOFT_HW, stored - 12) if stored >= 12 else SOFT_HW >> (12 - stored)
    if kind == "i":
        values_HW = values_HW - 2048
    window = {"WindowCenter": str(int(values_HW.mean())), "WindowWidth": str(int(np.ptp(values_HW)) // 2)}
    blob = dicom(cells(values_HW, allocated, stored, high, kind), stored, high, syntax, **window)
    copy = copy_of(blob, decoder)
    data = opened(copy)
    assert (data.BitsAllocated, data.BitsStored) == (min(allocated, 16), stored)
    assert (data.HighBit, data.PixelRepresentation) == (stored - 1, int(kind == "i"))
    assert np.array_equal(
        np.frombuffer(data.PixelData, f"<{kind}{data.BitsAllocated // 8}"), values_HW.ravel()
    )
    assert np.array_equal(data.pixel_array, values_HW)
    assert np.array_equal(decode_dicom(copy), decode_dicom(blob))


def test_a_copy_of_an_rle_file_whose_values_lie_in_its_highest_bits_has_them_in_its_lowest(
    decoder: Decoder,
) -> None:
    packed = opened(dicom(cells(SOFT_HW, 16, 12, 15), 12, 15))
    packed.compress(RLELossless, generate_instance_uid=False)
    file = io.BytesIO()
    packed.save_as(file)
    data = opened(copy_of(file.getvalue(), decoder))
    assert (data.BitsStored, data.HighBit) == (12, 11)
    assert np.array_equal(data.pixel_array, SOFT_HW)


def test_colour_of_few_bits_becomes_grey_of_eight(decoder: Decoder) -> None:
    """A palette's indices may have 4 bits; what they stand for has 8."""
    table = np.linspace(0, 0xFFFF, 16).astype("<u2").tobytes()
    palette = {
        f"{colour}PaletteColorLookupTable{part}": value
        for colour in ("Red", "Green", "Blue")
        for part, value in (("Descriptor", [16, 0, 16]), ("Data", table))
    }
    blob = dicom((SOFT_HW >> 8).astype(np.uint8), 4, 3, PhotometricInterpretation="PALETTE COLOR", **palette)
    data = opened(copy_of(blob, decoder))
    assert (data.PhotometricInterpretation, data.BitsStored, data.HighBit) == ("MONOCHROME2", 8, 7)
    assert np.array_equal(data.pixel_array, decode_dicom(blob))
    assert int(data.pixel_array.max()) > 15


def test_values_of_more_than_16_bits_are_refused_and_never_cut(decoder: Decoder) -> None:
    with pytest.raises(BadImageError, match="deeper than 16 bits"):
        copy_of(dicom(cells(SOFT_HW + (1 << 17), 32, 20, 19), 20, 19), decoder)
