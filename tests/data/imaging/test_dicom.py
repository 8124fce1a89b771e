"""`data.imaging.dicom`: every transfer syntax and every step from stored value to brightness, held to a second
computation.

The expected pixels come from the array that the test encoded and from formulas written out here, never from
the code under test. Real files are looked for beside the checkout and skipped when they are not there.
"""

import base64
import csv
import io
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.pixels import apply_modality_lut, apply_voi_lut, pixel_array
from pydicom.uid import (
    JPEG2000,
    HTJ2KLossless,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)
from pydicom.uid import ExplicitVRBigEndian as BigEndian
from pydicom.uid import ExplicitVRLittleEndian as Explicit
from pydicom.uid import ImplicitVRLittleEndian as Implicit

from data.imaging.dicom import decode_dicom, looks_like_dicom, open_dicom, stored_pixels
from data.imaging.errors import BadImageError
from tests.data.imaging.dicom_files import by_percentile, dicom, wave

REAL = Path(__file__).resolve().parents[3].parent / "shared" / "data" / "xrays"
OUTCOMES = {
    "nih_p2_test1": (1024, 1024),
    "nih_p2_wrong_bodypart": (1024, 1024),
    "nih_p2_wrong_modality": (1024, 1024),
    "nih_gcp_no_bodypart": (1024, 1024),
    "cr_mono1_10bit_chest": (440, 440),
    "rsna_16d7f894": (1024, 1024),
    "rsna_16d7f894_fake_mono1": (1024, 1024),
    "rg3_extremity_j2k_lossless": (1760, 1760),
    "rg3_extremity_j2k_lossy": (1760, 1760),
    "dx_no_pixel_data": "no_pixels",
    "nih_p61_effusion": (1024, 1024),
    "der_mono1_12bit": (512, 512),
    "der_16bit_rescale_window": (512, 512),
    "der_rle": (512, 512),
    "der_j2k_lossless": (512, 512),
    "der_missing_demographics": (512, 512),
    "der_fake_phi": (512, 512),
    "der_explicit_be": (512, 512),
    "der_rgb_secondary_capture": (512, 512),
    "der_truncated": "truncated",
}
"""What each real file has to become: rows and columns, or the reason why it is refused."""

JPEG_LS_40_48 = (
    "/9j/9wALDAAoADABAREA/9oACAEBAAAAAJpaWlnZWNpZ2VjYV9dW1lXVVNRT01LSUdFQ0H/99+e/Xnx37devTpz5cuXHjJzU0MzIxMC8"
    "uLSwrKikoJyYlJCMiISB++evHbpy4btmzVo0Zs2TJixYMGC81E69955551111xxxxtttttppppllllhhhhhddddddZZZZZZZY0Iyyqqq"
    "qqrWsYxjGMYxi1rWta1rWta1rUpSlKUpSlKMyKpTMyqqqqqqqqqqqqqqqqqqqqqqIiSSMiIkkkkkkkkkkkkklVVVVVUxIaqqqr//f/99"
    "gQn/f/9//39eQX//f/9//1cQH/9//3//da/v/3//f/96x+f/f/9//31b6/9//3//fqnx/3//f/9/Uvb/f/9//3+oen//f/9//1O8v/9/"
    "/3//aY4f/3//f/90pu//f/9//3pDZ/9//3//fRmr/3//f/9+iNH/f/9//39CZv9//3//f6Ayf/9//3//fzF//3//f/80k1g//3//f/4A"
    "AAGATvi9/3//f/92dGfpc/9//3//WVFfwtf/f/9//AAAAGBEf/ZY/3//f/9//3//f7Ghv/9RW/9//3//f/92FCf+Sp//f/9/AAAABgQX"
    "/3+Cl/9//3//f/9/+voD/3/7lD//f/9//37H/f97E7//f/9gAAAAMPz/f/92Jn//f/9//3//Lf1//3//KSv/f/9//2y/H/96Ej//f/wA"
    "AAABh7f/f/9/oRv/f/9//3/6v6f/f/9/+ZE//3//fZ/L/3/zAP/Z"
)
"""`wave()` at 12 bits through CharLS, the reference codec of JPEG-LS."""


def compressed(blob: bytes, syntax: str, **options: object) -> bytes:
    data = pydicom.dcmread(io.BytesIO(blob))
    data.compress(syntax, generate_instance_uid=False, **options)
    file = io.BytesIO()
    data.save_as(file, enforce_file_format=True)
    return file.getvalue()


def stored_of(blob: bytes) -> np.ndarray:
    return stored_pixels(open_dicom(blob))


def reason(blob: bytes) -> str:
    with pytest.raises(BadImageError) as caught:
        decode_dicom(blob)
    assert "DOE" not in str(caught.value)
    return caught.value.reason


class Bits:
    """Bits into the entropy-coded segment of a JPEG file, with its stuffed zeros."""

    def __init__(self) -> None:
        self.text = ""

    def put(self, value: int, length: int) -> None:
        self.text += format(value, f"0{length}b") if length else ""

    def difference(self, value: int) -> None:
        """Category by the code table `CODES` (five bits each), then the value's own bits (T.81 F.1.2.1)."""
        size = abs(value).bit_length()
        self.put(size, 5)
        self.put(value if value > 0 else value + (1 << size) - 1, size)

    def segment(self) -> bytes:
        padded = self.text + "1" * (-len(self.text) % 8)
        return int(padded, 2).to_bytes(len(padded) // 8, "big").replace(b"\xff", b"\xff\x00")


def marker(code: int, body: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, code, len(body) + 2) + body


def code_table(of: int) -> bytes:
    """17 categories, each with five bits: the code is the category (T.81 B.2.4.2)."""
    return marker(0xC4, bytes([of, 0, 0, 0, 0, 17]) + bytes(11) + bytes(range(17)))


def jpeg_lossless(stored_HW: np.ndarray, bits: int, predictor: int) -> bytes:
    """Process 14 with predictor 1 (left) or 7 (mean of left and above), written after T.81 annex H."""
    out, rows = Bits(), stored_HW.astype(int).tolist()
    for y, row in enumerate(rows):
        for x, value in enumerate(row):
            if y == 0:
                guess = row[x - 1] if x else 1 << (bits - 1)
            elif x == 0:
                guess = rows[y - 1][0]
            else:
                guess = row[x - 1] if predictor == 1 else (row[x - 1] + rows[y - 1][x]) >> 1
            out.difference(value - guess)
    height, width = stored_HW.shape
    frame = marker(0xC3, struct.pack(">BHHB", bits, height, width, 1) + bytes([1, 0x11, 0]))
    scan = marker(0xDA, bytes([1, 1, 0, predictor, 0, 0]))
    return b"\xff\xd8" + code_table(0) + frame + scan + out.segment() + b"\xff\xd9"


def jpeg_flat(blocks_HW: np.ndarray, bits: int) -> bytes:
    """Process 1 (8 bits) or 4 (12), each 8 x 8 block of one value: its DC coefficient is 8 times that, exactly."""
    out, before, middle = Bits(), 0, 1 << (bits - 1)
    for value in blocks_HW.astype(int).ravel().tolist():
        out.difference(value - middle - before)
        before = value - middle
        out.put(0, 5)  # end of block
    height, width = blocks_HW.shape[0] * 8, blocks_HW.shape[1] * 8
    tables = marker(0xDB, bytes([0]) + bytes([8]) * 64)
    frame = marker(0xC0 + (bits > 8), struct.pack(">BHHB", bits, height, width, 1) + bytes([1, 0x11, 0]))
    scan = marker(0xDA, bytes([1, 1, 0, 0, 63, 0]))
    codes = code_table(0) + code_table(0x10)
    return b"\xff\xd8" + tables + codes + frame + scan + out.segment() + b"\xff\xd9"


@pytest.mark.parametrize("syntax", [Explicit, Implicit, BigEndian])
@pytest.mark.parametrize(
    ("dtype", "bits"), [("u1", 8), ("u2", 10), ("u2", 12), ("u2", 16), ("i2", 12), ("i2", 16), ("i1", 8)]
)
def test_uncompressed_values_are_read_bit_by_bit(syntax: str, dtype: str, bits: int) -> None:
    values = wave(top=(1 << bits) - 1).astype(int)
    if dtype[0] == "i":
        values -= 1 << (bits - 1)
    stored = values.astype(dtype)
    assert np.array_equal(stored_of(dicom(stored, syntax=syntax, bits=bits)), stored)


LOSSLESS: dict[str, Callable[[np.ndarray], bytes]] = {
    "rle": lambda stored: compressed(dicom(stored), RLELossless),
    "jpeg lossless": lambda stored: dicom(stored, syntax=JPEGLossless, frames=[jpeg_lossless(stored, 12, 7)]),
    "jpeg lossless sv1": lambda stored: dicom(
        stored, syntax=JPEGLosslessSV1, frames=[jpeg_lossless(stored, 12, 1)]
    ),
    "jpeg-ls": lambda stored: dicom(stored, syntax=JPEGLSLossless, frames=[base64.b64decode(JPEG_LS_40_48)]),
    "jpeg 2000": lambda stored: compressed(dicom(stored), JPEG2000Lossless),
}


@pytest.mark.parametrize("name", LOSSLESS)
def test_a_lossless_codec_gives_the_very_values(name: str) -> None:
    blob = LOSSLESS[name](wave())
    assert np.array_equal(stored_of(blob), wave())
    assert np.array_equal(decode_dicom(blob), by_percentile(wave()))


def test_jpeg_baseline_gives_the_pixels_of_the_jpeg_inside_to_one_grey_level() -> None:
    """T.81 leaves the rounding of the inverse transform to the decoder."""
    file = io.BytesIO()
    Image.fromarray((wave() >> 4).astype(np.uint8)).save(file, "JPEG", quality=90)
    blob = dicom(wave().astype(np.uint8), syntax=JPEGBaseline8Bit, bits=8, frames=[file.getvalue()])
    with Image.open(file) as image:
        assert np.abs(stored_of(blob).astype(int) - np.asarray(image)).max() <= 1


@pytest.mark.parametrize(("syntax", "bits"), [(JPEGBaseline8Bit, 8), (JPEGExtended12Bit, 12)])
def test_jpeg_of_8_and_12_bits_is_exact_on_flat_blocks(syntax: str, bits: int) -> None:
    blocks_HW = wave(5, 6, top=(1 << bits) - 1)
    stored = np.kron(blocks_HW, np.ones((8, 8), int)).astype("u1" if bits == 8 else "u2")
    blob = dicom(stored, syntax=syntax, bits=bits, frames=[jpeg_flat(blocks_HW, bits)])
    assert np.array_equal(stored_of(blob), stored)


def test_lossy_jpeg_2000_stays_near_the_values() -> None:
    rows, columns = np.mgrid[0:64, 0:64]
    stored = (2048 + 900 * np.sin(rows / 9) + 900 * np.cos(columns / 7)).astype(np.uint16)
    blob = compressed(dicom(stored), JPEG2000, j2k_cr=[8])
    difference = np.abs(stored_of(blob).astype(int) - stored)
    assert 0 < difference.max() <= 40


def test_bits_above_and_below_the_stored_ones_are_no_part_of_the_picture() -> None:
    stored = wave()
    overlay = np.where(stored % 3 == 0, 0xF000, 0x5000).astype(np.uint16)
    assert np.array_equal(stored_of(dicom(stored | overlay)), stored)
    assert np.array_equal(decode_dicom(dicom(stored | overlay)), by_percentile(stored))
    shifted = (stored << 4) | (stored % 16)
    assert np.array_equal(stored_of(dicom(shifted, HighBit=15)), stored)
    assert np.array_equal(stored_of(compressed(dicom(shifted, HighBit=15), RLELossless)), stored)
    signed = stored.astype(int) - 2048
    above = ((signed & 0xFFF) | 0xA000).astype(np.uint16).view(np.int16)
    assert np.array_equal(stored_of(dicom(above)), signed)


def test_an_overlay_plane_never_reaches_the_picture() -> None:
    data = pydicom.dcmread(io.BytesIO(dicom(wave())))
    data.add_new(0x60000010, "US", 40)
    data.add_new(0x60000011, "US", 48)
    data.add_new(0x60003000, "OW", b"\xff" * 240)
    file = io.BytesIO()
    data.save_as(file)
    assert np.array_equal(decode_dicom(file.getvalue()), by_percentile(wave()))


def luma(rgb_HW3: np.ndarray) -> np.ndarray:
    """ITU-R 601-2."""
    return rgb_HW3.astype(float) @ np.array([0.299, 0.587, 0.114])


def rgb() -> np.ndarray:
    """Nearly grey: a picture in full colour is refused."""
    grey = np.stack([wave(top=200)] * 3, axis=-1)
    tint = np.stack([wave(top=20), wave(top=15)[::-1], wave(top=20)[:, ::-1]], axis=-1)
    return np.asarray(grey + tint).astype(np.uint8)


@pytest.mark.parametrize("planar", [0, 1])
def test_a_colour_capture_becomes_its_luma(planar: int) -> None:
    stored = np.ascontiguousarray(rgb() if planar == 0 else rgb().transpose(2, 0, 1))
    blob = dicom(
        stored,
        bits=8,
        SamplesPerPixel=3,
        PhotometricInterpretation="RGB",
        PlanarConfiguration=planar,
        Rows=40,
        Columns=48,
    )
    assert np.array_equal(stored_of(blob), rgb())
    assert np.abs(decode_dicom(blob) - luma(rgb())).max() <= 1


def test_a_capture_in_full_colour_is_refused() -> None:
    stored = np.zeros((40, 48, 3), np.uint8)
    stored[..., 0] = wave(top=255)
    fields = {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB", "PlanarConfiguration": 0}
    assert reason(dicom(stored, bits=8, Rows=40, Columns=48, **fields)) == "colour"


@pytest.mark.parametrize("photometric", ["YBR_FULL", "YBR_FULL_422"])
def test_ybr_captures_become_rgb_by_the_standards_matrix(photometric: str) -> None:
    ybr = rgb().astype(int)
    if photometric == "YBR_FULL_422":
        ybr[:, 1::2, 1:] = ybr[:, ::2, 1:]
        pairs = ybr.reshape(40, 24, 2, 3)
        stored = np.concatenate([pairs[:, :, :, 0], pairs[:, :, 0, 1:]], axis=-1).astype(np.uint8)
    else:
        stored = ybr.astype(np.uint8)
    blob = dicom(
        stored,
        bits=8,
        SamplesPerPixel=3,
        PhotometricInterpretation=photometric,
        PlanarConfiguration=0,
        Rows=40,
        Columns=48,
    )
    y, b, r = (ybr[..., n] - (128 if n else 0) for n in range(3))
    wanted = np.stack([y + 1.402 * r, y - 0.344136 * b - 0.714136 * r, y + 1.772 * b], axis=-1)
    assert np.abs(stored_of(blob) - np.clip(wanted, 0, 255)).max() <= 1


@pytest.mark.parametrize("entry_bits", [8, 16])
def test_a_palette_gives_each_index_its_colour(entry_bits: int) -> None:
    unit = 1 if entry_bits == 8 else 257
    tables = {
        "Red": [n * unit for n in range(256)],
        "Green": [(n * 19 // 20) * unit for n in range(256)],
        "Blue": [n * unit for n in range(256)],
    }
    fields: dict[str, object] = {}
    for colour, entries in tables.items():
        fields[f"{colour}PaletteColorLookupTableDescriptor"] = [256, 0, entry_bits]
        kind = "<u1" if entry_bits == 8 else "<u2"
        fields[f"{colour}PaletteColorLookupTableData"] = np.array(entries, kind).tobytes()
    index = wave(top=255).astype(np.uint8)
    blob = dicom(index, bits=8, PhotometricInterpretation="PALETTE COLOR", **fields)
    greens = (index.astype(int) * 19 // 20).astype(np.uint8)
    colours = np.stack([index, greens, index], axis=-1)
    assert np.array_equal(stored_of(blob), colours)
    assert np.abs(decode_dicom(blob) - luma(colours)).max() <= 1


@pytest.mark.parametrize("syntax", [Explicit, Implicit])
def test_a_file_without_preamble_or_file_meta_is_read(syntax: str) -> None:
    whole = dicom(wave(), syntax=syntax)
    meta_bytes = 12 + struct.unpack("<I", whole[140:144])[0]
    without_preamble, without_meta = whole[132:], whole[132 + meta_bytes :]
    for blob in (without_preamble, without_meta):
        assert looks_like_dicom(blob)
        assert np.array_equal(decode_dicom(blob), by_percentile(wave()))


def test_compressed_pixels_without_file_meta_are_refused() -> None:
    whole = LOSSLESS["jpeg 2000"](wave())
    meta_bytes = 12 + struct.unpack("<I", whole[140:144])[0]
    assert reason(whole[132 + meta_bytes :]) == "unsupported"


@pytest.mark.parametrize("blob", [b"<!DOCTYPE html>", b"", b"\x08\x00", b"GIF89a" + bytes(300), bytes(200)])
def test_what_is_no_dicom_does_not_look_like_it(blob: bytes) -> None:
    assert not looks_like_dicom(blob)


def test_what_cannot_be_shown_has_its_reason() -> None:
    assert reason(dicom(wave(), PhotometricInterpretation="CMYK")) == "unsupported"
    assert reason(dicom(wave(), syntax=HTJ2KLossless, frames=[b"12"])) == "corrupt"
    assert reason(dicom(wave(), syntax=JPEGLSLossless, frames=[b"\xff\xd8 no jpeg"])) == "corrupt"
    assert reason(dicom(wave())[:-900]) == "truncated"


@pytest.mark.skipif(not REAL.exists(), reason="the real X-rays are not here")
@pytest.mark.parametrize("name", OUTCOMES)
def test_every_real_file_ends_as_it_should(name: str) -> None:
    path = REAL / "dicom" / f"{name}.dcm"
    outcome = OUTCOMES[name]
    if isinstance(outcome, str):
        assert reason(path.read_bytes()) == outcome
        return
    shown_HW = decode_dicom(path.read_bytes())
    data = pydicom.dcmread(path)
    second = pixel_array(data)
    second = luma(second) if second.ndim == 3 else apply_voi_lut(apply_modality_lut(second, data), data)
    if data.PhotometricInterpretation == "MONOCHROME1":
        second = -second.astype(float)
    assert shown_HW.shape == outcome
    assert np.corrcoef(shown_HW.ravel(), second.ravel())[0, 1] > 0.99
    assert int(shown_HW.max()) - int(shown_HW.min()) > 200


@pytest.mark.skipif(not REAL.exists(), reason="the real X-rays are not here")
def test_the_table_of_outcomes_names_every_real_file() -> None:
    with (REAL / "dicom" / "manifest.csv").open() as file:
        assert {Path(row["path"]).stem for row in csv.DictReader(file)} == OUTCOMES.keys()
