"""Turn one stored X-ray into the pixels the ViT was trained on.

ETL, training, batch inference and serving all call `to_pixels` (or its two halves `decode` and `scale`)
and `to_model_input`, so they cannot disagree. Nothing here knows Ray, S3 or torch. Of a DICOM file only
the fields in `DICOM_FIELDS` are ever read: no name, date or identifier can reach a pixel, a message or a log.
"""

import io
import struct
import zlib
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pydicom
from PIL import Image, ImageOps
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset, read_preamble
from pydicom.pixels import apply_modality_lut, apply_voi_lut, pixel_array
from pydicom.uid import DeflatedExplicitVRLittleEndian

PREPROCESS_VERSION = "1"
"""Raised whenever the same file would give other pixels; part of a dataset's version and a model's card."""

MAX_PIXELS = 64_000_000
"""A larger image is refused from its header, before a decoder allocates it; large detectors give 25 MP."""
MIN_SIDE = 32
"""A shorter side holds less than two of the ViT's patches: a thumbnail or an icon."""
MIN_CONTRAST = 8
"""Grey levels (of 256) between the 0.5th and 99.5th percentile below which nothing can be seen."""
RAMP_PERCENTILES = (0.1, 99.9)
"""Of pixels deeper than 8 bits without a window: the range that is shown; the rest is hot or dead pixels."""

Kind = Literal["png", "jpeg", "dicom"]

PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
JPEG_MAGIC = b"\xff\xd8\xff"
DICOM_FIELDS = [
    *("SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration", "NumberOfFrames"),
    *("Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"),
    *("RescaleSlope", "RescaleIntercept", "RescaleType", "ModalityLUTSequence"),
    *("WindowCenter", "WindowWidth", "VOILUTFunction", "VOILUTSequence"),
    *("ExtendedOffsetTable", "ExtendedOffsetTableLengths", "PixelData"),
]

# What Pillow's PNG and JPEG readers raise on hostile bytes (fuzzed): UnidentifiedImageError and
# decoder errors are OSError, a broken chunk is SyntaxError, a bad size or text chunk ValueError.
RASTER_ERRORS = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, IndexError, KeyError,
                 TypeError, OverflowError, Image.DecompressionBombError)  # fmt: skip
# pydicom: InvalidDicomError and EOFError on the framing, ValueError and its kin on elements, AttributeError
# and KeyError on missing ones, NotImplementedError on transfer syntaxes; pylibjpeg: RuntimeError, TypeError.
DICOM_ERRORS = (pydicom.errors.InvalidDicomError, pydicom.errors.BytesLengthException, EOFError, ValueError,
                AttributeError, KeyError, TypeError, NotImplementedError, RuntimeError, IndexError,
                OverflowError, ArithmeticError, LookupError, OSError, struct.error, zlib.error)  # fmt: skip


class BadImageError(ValueError):
    """One image cannot be used; the message is one line without patient data or file content.

    Reasons: empty, unknown_type, truncated, corrupt, unsupported, no_pixels, multi_frame, too_small,
    too_large, blank.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message

    def __reduce__(self) -> tuple[type, tuple[str, str]]:
        """Rebuilt from both arguments when Ray sends it to another process."""
        return type(self), (self.reason, self.message)


class UnknownTypeError(BadImageError):
    """The bytes are neither PNG, JPEG nor DICOM."""


@dataclass(frozen=True, kw_only=True)
class PixelConfig:
    """How a shown image becomes the model's input; stored in the dataset's manifest and the model's card."""

    side: int = 224
    """Height and width of the model input, pixels; a multiple of the 16-pixel patch."""
    mean: float = 0.5
    """Subtracted from uint8 / 255."""
    std: float = 0.25
    """Divisor after `mean`."""
    low_percentile: float = 0.5
    """Brightness of the resized image that becomes 0."""
    high_percentile: float = 99.5
    """Brightness of the resized image that becomes 255; what is brighter (markers, redaction boxes) clips."""

    def __post_init__(self) -> None:
        if self.side < 16 or self.side % 16:
            raise ValueError(f"side must be a positive multiple of 16, got {self.side}")
        if self.std <= 0:
            raise ValueError(f"std must be positive, got {self.std}")
        if not 0 <= self.low_percentile < self.high_percentile <= 100:
            raise ValueError(
                "percentiles must rise within 0..100, "
                f"got low_percentile {self.low_percentile} and high_percentile {self.high_percentile}"
            )


@dataclass(frozen=True)
class Decoded:
    """One X-ray as a person would be shown it."""

    shown_HW: np.ndarray
    """uint8, full size, 0 = air; windowed, and pixels only."""
    kind: Kind
    width: int
    """Columns of `shown_HW`."""
    height: int
    """Rows of `shown_HW`."""


def sniff(blob: bytes) -> Kind | None:
    """The type that the first bytes say, None when it is none of ours; the file's name never counts."""
    if blob.startswith(PNG_MAGIC):
        return "png"
    if blob.startswith(JPEG_MAGIC):
        return "jpeg"
    if blob[128:132] == b"DICM":
        return "dicom"
    return None


def decode(blob: bytes, waived: Collection[str] = ()) -> Decoded:
    """Read one image.

    Args:
        blob: one whole PNG, JPEG or DICOM file; the caller has bounded its size.
        waived: reasons that a reviewer has judged; a check that gives one of them lets the image pass.
    Raises:
        UnknownTypeError: it is none of the three types.
        BadImageError: it is one of them and cannot be used.
    """
    if not blob:
        raise BadImageError("empty", "the file is empty: 0 bytes")
    kind = sniff(blob)
    if kind is None:
        raise UnknownTypeError("unknown_type", f"{len(blob)} bytes that are neither PNG, JPEG nor DICOM")
    shown_HW = _decode_dicom(blob, waived) if kind == "dicom" else _decode_raster(blob, kind, waived)
    low, high = _percentiles(_histogram(shown_HW), 0.5, 99.5)
    if high - low < MIN_CONTRAST and "blank" not in waived:
        raise BadImageError("blank", "the image has no contrast: nothing can be seen on it")
    height, width = shown_HW.shape
    return Decoded(shown_HW=shown_HW, kind=kind, width=width, height=height)


def scale(shown_HW: np.ndarray, config: PixelConfig) -> np.ndarray:
    """Fit the shown image into the model's square.

    The longer side becomes `side` (antialiased), the brightness is stretched between the two percentiles,
    and the shorter side is padded with air on both ends. Padded, not cropped: a fracture at the end of a
    long film or a blunted costophrenic angle at its edge must not be cut away unseen.

    Returns:
        pixels_HW: uint8, (side, side), 0 = air.
    """
    height, width = shown_HW.shape
    longer = max(height, width)
    size = (max(1, round(width * config.side / longer)), max(1, round(height * config.side / longer)))
    small = Image.fromarray(shown_HW).resize(size, Image.Resampling.BILINEAR, reducing_gap=3.0)
    low, high = _percentiles(np.asarray(small.histogram()), config.low_percentile, config.high_percentile)
    small = small.point(_stretch(np.arange(256), low, high).tolist())
    pixels_HW = np.zeros((config.side, config.side), np.uint8)
    top, left = (config.side - size[1]) // 2, (config.side - size[0]) // 2
    pixels_HW[top : top + size[1], left : left + size[0]] = np.asarray(small)
    return pixels_HW


def to_pixels(blob: bytes, config: PixelConfig, waived: Collection[str] = ()) -> np.ndarray:
    """Decode one X-ray and scale it for the model.

    Args:
        blob: one whole PNG, JPEG or DICOM file; the caller has bounded its size.
        waived: see `decode`.
    Returns:
        pixels_HW: uint8, (side, side), 0 = air, whatever MONOCHROME the file used.
    Raises:
        BadImageError: the bytes cannot be decoded; the message says why, never with patient data.
    Source: DICOM PS3.3 C.11.1 (modality LUT) and C.11.2 (VOI LUT).
    """
    return scale(decode(blob, waived).shown_HW, config)


def to_model_input(pixels_NHW: np.ndarray, config: PixelConfig) -> np.ndarray:
    """The float input of the ViT, x_NCHW: float32, (N, 1, side, side); the only place of mean and std."""
    x_NHW = pixels_NHW.astype(np.float32)
    x_NHW *= np.float32(1 / (255 * config.std))
    x_NHW -= np.float32(config.mean / config.std)
    return x_NHW[:, None]


def encode_png(shown_HW: np.ndarray) -> bytes:
    """The shown image as 8-bit grey PNG without any metadata.

    Written here because it is on the request path: differences between rows, Huffman-coded only, take 11 ms
    for a megapixel where Pillow's search for the best filter takes 38 at the same size.
    Source: PNG specification, 3rd edition, sections 5.3 (chunks) and 9.2 (filter type 2, Up).
    """
    height, width = shown_HW.shape
    rows = np.empty((height, width + 1), np.uint8)
    rows[:, 0] = 2
    rows[0, 1:] = shown_HW[0]
    np.subtract(shown_HW[1:], shown_HW[:-1], out=rows[1:, 1:])
    packer = zlib.compressobj(level=1, strategy=zlib.Z_HUFFMAN_ONLY)
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", packer.compress(rows.tobytes()) + packer.flush()), (b"IEND", b""))
    return PNG_MAGIC + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in chunks
    )


def _decode_raster(blob: bytes, kind: Kind, waived: Collection[str]) -> np.ndarray:
    """PNG of any depth and colour, or JPEG turned upright as its EXIF orientation asks.

    The two readers are called by name: `Image.open` would try every format that Pillow knows.
    """
    try:
        image: Image.Image = (PngImageFile if kind == "png" else JpegImageFile)(io.BytesIO(blob))
        _check_size(*image.size, waived)
        image.load()
        image = ImageOps.exif_transpose(image)
    except BadImageError:
        raise
    except RASTER_ERRORS as error:
        end = b"IEND" if kind == "png" else b"\xff\xd9"
        whole = end in blob[-64:]
        state = "is damaged" if whole else "ends too early"
        raise BadImageError(
            "corrupt" if whole else "truncated", f"the {kind.upper()} file of {len(blob)} bytes {state}"
        ) from error
    if image.mode in ("I;16", "I;16B", "I"):
        return _show(np.asarray(image), lambda ramp: ramp, windowed=False)
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), image)
    return np.asarray(image.convert("L"))


def _decode_dicom(blob: bytes, waived: Collection[str]) -> np.ndarray:
    """Modality LUT, then VOI LUT or window, then inverted if MONOCHROME1."""
    try:
        header = _read_dicom(blob, waived)
        stored = pixel_array(header)
        if header.get("SamplesPerPixel", 1) == 3:
            return np.asarray(Image.fromarray(stored).convert("L"))
        windowed = _has_window(header)
        sign = -1 if header.PhotometricInterpretation == "MONOCHROME1" else 1

        def values_of(ramp: np.ndarray) -> np.ndarray:
            values = apply_modality_lut(ramp, header)
            if windowed:
                values = apply_voi_lut(values, header)
            return sign * values.astype(np.float64)

        return _show(stored, values_of, windowed=windowed)
    except BadImageError:
        raise
    except DICOM_ERRORS as error:
        short = isinstance(error, EOFError) or "less than expected" in str(error)
        state = "ends too early" if short else "cannot be decoded"
        raise BadImageError(
            "truncated" if short else "corrupt", f"the DICOM file of {len(blob)} bytes {state}"
        ) from error


def _read_dicom(blob: bytes, waived: Collection[str]) -> Dataset:
    """The fields that make the picture, after the checks that need no decoder."""
    file = io.BytesIO(blob)
    read_preamble(file, force=False)
    meta = read_dataset(file, False, True, stop_when=lambda tag, vr, length: tag >> 16 != 2)
    if meta.get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian:
        raise BadImageError("unsupported", "the DICOM file is deflated as a whole; store it uncompressed")
    header = pydicom.dcmread(io.BytesIO(blob), specific_tags=list(DICOM_FIELDS))
    if not header.get("PixelData"):
        raise BadImageError("no_pixels", "the DICOM file has no pixel data")
    if int(header.get("NumberOfFrames") or 1) != 1:
        raise BadImageError("multi_frame", "the DICOM file holds several frames, and one X-ray is expected")
    _check_size(int(header.Columns), int(header.Rows), waived)
    return header


def _has_window(header: Dataset) -> bool:
    """Whether the file brings a usable VOI LUT or window; some devices write an empty or zero one."""
    if header.get("VOILUTSequence"):
        return True
    width = header.get("WindowWidth")
    first = width[0] if isinstance(width, pydicom.multival.MultiValue) and width else width
    return header.get("WindowCenter") is not None and first is not None and float(first) >= 1


def _check_size(width: int, height: int, waived: Collection[str]) -> None:
    if min(width, height) < MIN_SIDE and "too_small" not in waived:
        raise BadImageError("too_small", f"the image is {width} x {height}; {MIN_SIDE} pixels is the least")
    if width * height > MAX_PIXELS:
        raise BadImageError(
            "too_large", f"the image is {width} x {height}; {MAX_PIXELS // 1_000_000} megapixels is the most"
        )


def _show(
    stored_HW: np.ndarray, values_of: Callable[[np.ndarray], np.ndarray], *, windowed: bool
) -> np.ndarray:
    """Deep integers to uint8 by one table over the stored range: each step is pointwise, so 65,536 values do.

    Args:
        values_of: stored values → brightness; what a window has clipped is flat at both ends.
        windowed: whether a window chose the range; else `RAMP_PERCENTILES` of the pixels do.
    """
    lowest, highest = int(stored_HW.min()), int(stored_HW.max())
    if stored_HW.ndim != 2 or highest - lowest >= 1 << 16:
        raise BadImageError("unsupported", "the image is deeper than 16 bits or no plane of grey values")
    index_HW = (stored_HW.astype(np.int32) - lowest).astype(np.uint16)
    values = values_of(np.arange(lowest, highest + 1).astype(stored_HW.dtype))
    if windowed:
        low, high = values.min(), values.max()
    else:
        order = np.argsort(values, kind="stable")
        counts = np.bincount(index_HW.ravel(), minlength=len(values))[order]
        low, high = values[order][list(_percentiles(counts, *RAMP_PERCENTILES))]
    return _stretch(values, low, high)[index_HW]


def _stretch(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """low..high → 0..255, rounded and clipped; all 0 when there is no range."""
    span = max(float(high) - float(low), 1e-9)
    return np.clip((values.astype(np.float64) - low) * (255 / span) + 0.5, 0, 255).astype(np.uint8)


def _histogram(shown_HW: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(shown_HW).histogram())


def _percentiles(counts: np.ndarray, low: float, high: float) -> tuple[int, int]:
    """The bins in which the two percentiles of a histogram lie."""
    below = np.cumsum(counts)
    positions = np.searchsorted(below, [below[-1] * low / 100, below[-1] * high / 100], side="left")
    return int(positions[0]), int(min(positions[1], len(counts) - 1))
