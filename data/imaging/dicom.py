"""Open a DICOM file and show its one picture: CR, DX and secondary captures of every transfer syntax we read.

`data.imaging.preprocess` calls `decode_dicom`; `data.privacy.export` also wants the stored pixels. Of the header
only the fields in `DICOM_FIELDS` are read here: no name, date or identifier can reach a pixel, a message or a log.
The codecs are pydicom's with pylibjpeg; what stored values mean (PS3.3 C.7.6.3, C.11.1, C.11.2) is below.
"""

import io
import re
import struct
import zlib
from collections.abc import Collection, Sequence

import numpy as np
import pydicom
from PIL import Image
from pydicom.datadict import tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset, read_preamble
from pydicom.pixels import apply_color_lut, pixel_array
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
)

from data.imaging.colour import refuse_colour
from data.imaging.dicom_lut import modality_values, padding_of, voi_values
from data.imaging.errors import BadImageError, check_size
from data.imaging.lut import look_up
from data.imaging.windowing import ramp_limits, ramp_of, stretch

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


def looks_like_dicom(blob: bytes) -> bool:
    """Recognise the magic word after the preamble, or the first element of a file that lacks both."""
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
    """Turn one of `DICOM_ERRORS` into our error."""
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


def raw_text(dataset: Dataset | None, keyword: str) -> str:
    """Return a short text as it is in the file, byte for character; empty where it is missing.

    Not as pydicom converts it: the character set may be anything, and pydicom logs values that it cannot convert.
    """
    tag = tag_for_keyword(keyword)
    if dataset is None or tag is None or tag not in dataset:
        return ""
    element = dataset.get_item(tag)
    value = element.value if isinstance(element, RawDataElement) else dataset[tag].value
    text = value.decode("latin-1") if isinstance(value, bytes) else str(value or "")
    return text.strip(" \0")


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
    """Turn stored pixels into the image that a person is shown: uint8, (H, W), 0 = air.

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
    padding = padding_of(ramp, header)
    if windowed:
        picture = brightness if padding is None or padding.all() else brightness[~padding]
        low, high = picture.min(), picture.max()
    else:
        low, high = ramp_limits(index_HW, brightness, padding)
    table = stretch(brightness, low, high)
    if padding is not None:
        table[padding] = 0
    return look_up(table, index_HW)


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


def _guess_syntax(header: Dataset) -> None:
    """Complete a file without file meta, which is safe as long as its pixels are not compressed."""
    implicit, little = header.original_encoding
    if "PixelData" in header and header["PixelData"].is_undefined_length:
        raise BadImageError("unsupported", "the DICOM file does not say how its pixels are compressed")
    syntax = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
    header.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else syntax
