"""Turn one stored X-ray into the pixels the ViT was trained on.

ETL, training, batch inference and serving all call `to_pixels` (or its two halves `decode` and `scale`) and
`to_model_input`, so they cannot disagree: the type is read from the bytes, `data.imaging.dicom` opens DICOM files,
`data.imaging.burned_in_text` masks text in the pixels. Nothing here knows Ray, S3 or torch. `PixelConfig` checks
its ranges by hand: pydantic would be one more import of every decoder process and of the edge runner.
"""

import io
import struct
import zlib
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image, ImageOps
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile

from data.imaging.burned_in_text import mask_text
from data.imaging.colour import refuse_colour
from data.imaging.dicom import decode_dicom, looks_like_dicom
from data.imaging.errors import BadImageError, UnknownTypeError, check_size
from data.imaging.lut import look_up
from data.imaging.windowing import percentiles, ramp_limits, ramp_of, stretch

PREPROCESS_VERSION = "3"
"""Raised whenever the same file would give other pixels; part of a dataset's version and a model's card."""

MIN_CONTRAST = 8
"""Grey levels (of 256) between the 0.5th and 99.5th percentile below which nothing can be seen."""
Kind = Literal["png", "jpeg", "dicom"]

PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
JPEG_MAGIC = b"\xff\xd8\xff"

# What Pillow's PNG and JPEG readers raise on hostile bytes (fuzzed): UnidentifiedImageError and
# decoder errors are OSError, a broken chunk is SyntaxError, a bad size or text chunk ValueError.
RASTER_ERRORS = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, IndexError, KeyError,
                 TypeError, OverflowError, Image.DecompressionBombError)  # fmt: skip


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
    """uint8, full size, 0 = air; windowed, burned-in text masked, and pixels only."""
    kind: Kind
    width: int
    """Columns of `shown_HW`."""
    height: int
    """Rows of `shown_HW`."""
    study_sha256: str | None = None
    """SHA-256 of a DICOM file's StudyInstanceUID, hexadecimal: what the file says is lost here."""
    concerns: tuple[str, ...] = ()
    """What makes an answer about it doubtful, see `data.imaging.quality_concerns`; found by `quality.doubted`."""


def sniff(blob: bytes) -> Kind | None:
    """Return the type that the first bytes say, None when it is none of ours; the file's name never counts."""
    if blob.startswith(PNG_MAGIC):
        return "png"
    if blob.startswith(JPEG_MAGIC):
        return "jpeg"
    return "dicom" if looks_like_dicom(blob) else None


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
    shown_HW = mask_text(
        decode_dicom(blob, waived) if kind == "dicom" else _decode_raster(blob, kind, waived)
    )
    low, high = percentiles(_histogram(shown_HW), 0.5, 99.5)
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
    top, left, height, width = place(shown_HW.shape, config.side)
    small = Image.fromarray(shown_HW).resize((width, height), Image.Resampling.BILINEAR, reducing_gap=3.0)
    low, high = percentiles(np.asarray(small.histogram()), config.low_percentile, config.high_percentile)
    small = small.point(stretch(np.arange(256), low, high).tolist())
    pixels_HW = np.zeros((config.side, config.side), np.uint8)
    pixels_HW[top : top + height, left : left + width] = np.asarray(small)
    return pixels_HW


def place(shape: tuple[int, ...], side: int) -> tuple[int, int, int, int]:
    """Return where `scale` puts a shown image in the model's square: top, left, height, width, in pixels."""
    height, width = shape
    longer = max(height, width)
    inner = (max(1, round(height * side / longer)), max(1, round(width * side / longer)))
    return (side - inner[0]) // 2, (side - inner[1]) // 2, *inner


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
    """Compute the float input of the ViT, x_NCHW: float32, (N, 1, side, side); only here mean and std apply."""
    x_NHW = pixels_NHW.astype(np.float32)
    x_NHW *= np.float32(1 / (255 * config.std))
    x_NHW -= np.float32(config.mean / config.std)
    return x_NHW[:, None]


def encode_png(shown_HW: np.ndarray) -> bytes:
    """Encode the shown image as 8-bit grey PNG without any metadata.

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
    """Read PNG of any depth and colour, or JPEG turned upright as its EXIF orientation asks.

    The two readers are called by name: `Image.open` would try every format that Pillow knows.
    """
    try:
        image: Image.Image = (PngImageFile if kind == "png" else JpegImageFile)(io.BytesIO(blob))
        check_size(*image.size, waived)
        image.load()
        image = ImageOps.exif_transpose(image)
        refuse_colour(image, waived)
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
        index_HW, ramp = ramp_of(np.asarray(image))
        return look_up(stretch(ramp, *ramp_limits(index_HW, ramp)), index_HW)
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), image)
    return np.asarray(image.convert("L"))


def _histogram(shown_HW: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(shown_HW).histogram())
