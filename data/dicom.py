"""Open a DICOM file and show its one picture: CR, DX and secondary captures of every transfer syntax we read.

`data.preprocess` calls `decode_dicom`; `data.export` also wants the stored pixels. Of the header only the
fields in `DICOM_FIELDS` are read here: no name, date or identifier can reach a pixel, a message or a log.
The codecs are pydicom's with pylibjpeg; what stored values mean (PS3.3 C.7.6.3, C.11.1, C.11.2) is below.
"""

import io
import re
import struct
import zlib
from collections.abc import Collection, Sequence
from typing import Literal

import numpy as np
import pydicom
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset, read_preamble
from pydicom.multival import MultiValue
from pydicom.pixels import apply_color_lut, pixel_array
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
)

from data.bad_image import BadImageError, check_size
from data.colour import refuse_colour
from data.lookup import look_up
from data.tone import ramp_limits, ramp_of, stretch

PALETTE_FIELDS = [
    f"{prefix}{colour}PaletteColorLookupTable{part}"
    for prefix, part in (("", "Descriptor"), ("", "Data"), ("Segmented", "Data"))
    for colour in ("Red", "Green", "Blue")
]
DICOM_FIELDS = [
    *("SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration", "NumberOfFrames"),
    *("Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"),
    *("PixelPaddingValue", "PixelPaddingRangeLimit", "RescaleSlope", "RescaleIntercept"),
    *("ModalityLUTSequence", "WindowCenter", "WindowWidth", "VOILUTFunction", "VOILUTSequence"),
    *("ExtendedOffsetTable", "ExtendedOffsetTableLengths", "PixelData", *PALETTE_FIELDS),
]
CELLS = (ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, RLELossless)
"""Transfer syntaxes that keep a pixel's whole cell, unused bits too; other codecs keep its value."""
COLOUR = ("RGB", "PALETTE COLOR", "YBR_FULL", "YBR_FULL_422", "YBR_PARTIAL_420", "YBR_ICT", "YBR_RCT")
MONOCHROME = ("MONOCHROME1", "MONOCHROME2")
BARE = re.compile(
    rb"\x02\x00\x00\x00UL\x04\x00|\x02\x00[\x00-\x20]\x00(?:UL|OB|UI|SH|AE)"
    rb"|\x08\x00[\x00-\xff]\x00(?:CS|UI|DA|TM|UL)"
    rb"|\x08\x00[\x00-\xff]\x00[\x04-\x40]\x00\x00\x00",
    re.DOTALL,
)
"""How a DICOM file without preamble begins: file meta, or the first element of group 8, in little endian."""

# pydicom: InvalidDicomError and EOFError on the framing, ValueError and its kin on elements, AttributeError
# and KeyError on missing ones, NotImplementedError on transfer syntaxes; pylibjpeg: RuntimeError, TypeError.
DICOM_ERRORS = (pydicom.errors.InvalidDicomError, pydicom.errors.BytesLengthException, EOFError, ValueError,
                AttributeError, KeyError, TypeError, NotImplementedError, RuntimeError, IndexError,
                OverflowError, ArithmeticError, LookupError, OSError, struct.error, zlib.error)  # fmt: skip

VoiFunction = Literal["LINEAR", "LINEAR_EXACT", "SIGMOID"]


def looks_like_dicom(blob: bytes) -> bool:
    """The magic word after the preamble, or the first element of a file that lacks both."""
    return blob[128:132] == b"DICM" or BARE.match(blob) is not None


def decode_dicom(blob: bytes, waived: Collection[str] = ()) -> np.ndarray:
    """Show one file: modality LUT, then VOI LUT or window, then inverted if MONOCHROME1; colour as grey.

    Args:
        waived: reasons that a reviewer has judged; a check that gives one of them lets the image pass.
    Returns:
        shown_HW: uint8, full size, 0 = air.
    Raises:
        BadImageError: it cannot be decoded, or holds no single picture.
    """
    try:
        header = open_dicom(blob, DICOM_FIELDS)
        return show_stored(stored_pixels(header, waived), header, waived)
    except BadImageError:
        raise
    except DICOM_ERRORS as error:
        raise explain(error, len(blob)) from error


def explain(error: Exception, size_bytes: int) -> BadImageError:
    """Our error for one of `DICOM_ERRORS`."""
    short = isinstance(error, EOFError) or "less than expected" in str(error)
    state = "ends too early" if short else "cannot be decoded"
    return BadImageError("truncated" if short else "corrupt", f"the DICOM file of {size_bytes} bytes {state}")


def open_dicom(blob: bytes, fields: Sequence[str] | None = None, *, pixels: bool = True) -> Dataset:
    """Read a file, with or without preamble and file meta; nothing is inflated and no value is validated.

    pydicom's own validation would put values into warnings, and so patient data into logs: it is off.

    Args:
        fields: keywords to read; None: all of them.
        pixels: False stops before the pixel data.
    Raises:
        BadImageError: unsupported, when the file is deflated as a whole.
        DICOM_ERRORS: it cannot be read.
    """
    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
    file = io.BytesIO(blob)
    read_preamble(file, force=True)
    meta = read_dataset(file, False, True, stop_when=lambda tag, vr, length: tag >> 16 != 2)
    if meta.get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian:
        raise BadImageError("unsupported", "the DICOM file is deflated as a whole; store it uncompressed")
    header = pydicom.dcmread(
        io.BytesIO(blob),
        force=True,
        stop_before_pixels=not pixels,
        specific_tags=None if fields is None else list(fields),
    )
    if "TransferSyntaxUID" not in header.file_meta:
        _guess_syntax(header)
    return header


def stored_pixels(header: Dataset, waived: Collection[str] = ()) -> np.ndarray:
    """Decode the one frame.

    Returns:
        Grey: integers (H, W), of the bits stored only. Colour: uint8 RGB (H, W, 3).
    Raises:
        BadImageError: no pixels, several frames, or a size or kind that is not read.
        DICOM_ERRORS: the pixel data is damaged.
    """
    if not header.get("PixelData"):
        raise BadImageError("no_pixels", "the DICOM file has no pixel data")
    if int(header.get("NumberOfFrames") or 1) != 1:
        raise BadImageError("multi_frame", "the DICOM file holds several frames, and one X-ray is expected")
    check_size(int(header.Columns), int(header.Rows), waived)
    kind = header.PhotometricInterpretation
    if kind not in (*MONOCHROME, *COLOUR):
        raise BadImageError("unsupported", "the DICOM file has a photometric interpretation that is not read")
    bits = int(header.BitsStored)
    unused_bits = _align_bits(header)
    stored = pixel_array(header) >> unused_bits
    if kind in MONOCHROME:
        return stored
    if kind == "PALETTE COLOR":
        stored = apply_color_lut(stored, header)
        bits = 8 * stored.dtype.itemsize
    return (stored >> max(0, bits - 8)).astype(np.uint8)


def show_stored(stored: np.ndarray, header: Dataset, waived: Collection[str] = ()) -> np.ndarray:
    """Stored pixels as a person would be shown them: uint8, (H, W), 0 = air.

    A window wider than the pixels' range shows that range; one that would hide every pixel is ignored.
    Without a window the range of nearly all pixels is shown, padding left out.
    """
    if stored.ndim == 3:
        image = Image.fromarray(stored)
        refuse_colour(image, waived)
        return np.asarray(image.convert("L"))
    index_HW, ramp = ramp_of(stored)
    values = modality_values(ramp, header)
    brightness = voi_values(values, header)
    windowed = brightness is not None
    brightness = values if brightness is None else brightness
    if header.PhotometricInterpretation == "MONOCHROME1":
        brightness = -brightness
    padding = _padding(ramp, header)
    if windowed:
        picture = brightness if padding is None or padding.all() else brightness[~padding]
        low, high = picture.min(), picture.max()
    else:
        low, high = ramp_limits(index_HW, brightness, padding)
    table = stretch(brightness, low, high)
    if padding is not None:
        table[padding] = 0
    return look_up(table, index_HW)


def modality_values(ramp: np.ndarray, header: Dataset) -> np.ndarray:
    """Stored values → what the device measured: float64. Source: PS3.3 C.11.1."""
    if header.get("ModalityLUTSequence"):
        return _through_lut(ramp.astype(np.float64), header.ModalityLUTSequence[0], header)
    slope, intercept = _number(header.get("RescaleSlope")), _number(header.get("RescaleIntercept"))
    return ramp * (slope if slope else 1.0) + (intercept or 0.0)


def voi_values(values: np.ndarray, header: Dataset) -> np.ndarray | None:
    """Measured values → brightness through the VOI LUT, or the first window that shows anything.

    None where the file brings neither. Source: PS3.3 C.11.2.
    """
    if header.get("VOILUTSequence"):
        curve = _through_lut(values, header.VOILUTSequence[0], header)
        return curve if curve.min() < curve.max() else None
    centers, widths = _numbers(header.get("WindowCenter")), _numbers(header.get("WindowWidth"))
    function = header.get("VOILUTFunction") or "LINEAR"
    for center, width in zip(centers, widths, strict=False):
        if width >= 1 or (width > 0 and function != "LINEAR"):
            curve = window(values, center, width, function)
            if curve.min() < curve.max():
                return curve
    return None


def window(values: np.ndarray, center: float, width: float, function: str) -> np.ndarray:
    """Brightness 0..1 of each value; an unknown function counts as LINEAR.

    Source: PS3.3 C.11.2.1.2.1 (LINEAR), C.11.2.1.3.2 (LINEAR_EXACT), C.11.2.1.3.1 (SIGMOID).
    """
    if function == "SIGMOID":
        return np.asarray(1 / (1 + np.exp(np.clip(-4 * (values - center) / width, -700, 700))))
    if function == "LINEAR_EXACT":
        return np.clip((values - center) / width + 0.5, 0, 1)
    if width == 1:
        return (values > center - 0.5).astype(np.float64)
    return np.clip((values - (center - 0.5)) / (width - 1) + 0.5, 0, 1)


def _through_lut(values: np.ndarray, item: Dataset, header: Dataset) -> np.ndarray:
    """Look values up in one item of a LUT sequence; outside of it the first or last entry counts.

    Source: PS3.3 C.11.1.1.1: 0 entries stand for 65,536; 8-bit entries may lie two in a word.
    """
    entries, first, _bits = (int(value) for value in item.LUTDescriptor)
    entries = entries % 65536 or 65536
    if first >= 32768 and values.min() < 0:
        first -= 65536
    data = item.LUTData
    if not isinstance(data, bytes):
        data = np.atleast_1d(np.asarray(data, np.int64)).astype(np.uint16).tobytes()
        little = True
    else:
        little = header.file_meta.TransferSyntaxUID != ExplicitVRBigEndian
    if len(data) >= 2 * entries:
        table = np.frombuffer(data, "<u2" if little else ">u2", entries)
    else:
        table = np.frombuffer(data if little else _swapped(data), np.uint8, entries)
    index = np.clip(np.rint(values) - first, 0, entries - 1).astype(np.int64)
    return table[index].astype(np.float64)


def _swapped(words: bytes) -> bytes:
    return np.frombuffer(words, ">u2").astype("<u2").tobytes()


def _align_bits(header: Dataset) -> int:
    """Let pydicom keep the bits up to the highest used one; returns the unused bits below, to shift away.

    Overlays in unused bits and garbage above them never reach a pixel. Source: PS3.5 8.1.1; annex G for RLE.
    """
    stored = int(header.BitsStored)
    highest = int(header.get("HighBit", stored - 1))
    if header.file_meta.TransferSyntaxUID not in CELLS or not stored <= highest + 1 <= header.BitsAllocated:
        return 0
    header.BitsStored = highest + 1
    return highest + 1 - stored


def _padding(ramp: np.ndarray, header: Dataset) -> np.ndarray | None:
    """bool over the ramp: what the device filled in beside the picture. Source: PS3.3 C.7.5.1.1.2."""
    value = _number(header.get("PixelPaddingValue"))
    if value is None:
        return None
    limit = _number(header.get("PixelPaddingRangeLimit"))
    ends = sorted((value, value if limit is None else limit))
    if header.get("PixelRepresentation") == 1:
        ends = sorted(end - 65536 if end >= 32768 else end for end in ends)
    inside = (ramp >= ends[0]) & (ramp <= ends[1])
    return inside if inside.any() and not inside.all() else None


def _guess_syntax(header: Dataset) -> None:
    """Complete a file without file meta, which is safe as long as its pixels are not compressed."""
    implicit, little = header.original_encoding
    if "PixelData" in header and header["PixelData"].is_undefined_length:
        raise BadImageError("unsupported", "the DICOM file does not say how its pixels are compressed")
    syntax = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
    header.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else syntax


def _numbers(value: object) -> list[float]:
    found = [_number(one) for one in (value if isinstance(value, MultiValue) else [value])]
    return [one for one in found if one is not None]


def _number(value: object) -> float | None:
    """A finite number, None for an empty or broken one."""
    try:
        number = float(str(value))
    except ValueError:
        return None
    return number if np.isfinite(number) else None
