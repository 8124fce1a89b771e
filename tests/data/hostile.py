"""Files that mean harm, or look as if: some 500 of 58 kinds, made from a seed, each with how it may end.

`tests/data/test_hostile.py` sends all of them through `data.sandbox.decoder`; `python tests/data/hostile.py
FOLDER` writes them down to look at. "decodes" is an outcome where the picture is sound or the damage spares it; a
reason is one of `docs/data.md`. Nothing here is read from a real patient.
"""

import io
import math
import struct
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

DECODES = "decodes"
DAMAGED = frozenset({"corrupt", "truncated"})
ANYTHING = frozenset(
    {DECODES, "corrupt", "truncated", "unsupported", "unknown_type", "no_pixels", "multi_frame", "too_small"}
    | {"too_large", "blank", "colour", "not_an_xray", "inverted", "lateral", "too_much_memory"}
)
"""Of flipped bits: they may hit any field. No crash, and nothing that takes too long."""
PNG = b"\x89PNG\r\n\x1a\n"
EXPLICIT, IMPLICIT, BIG = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2", "1.2.840.10008.1.2.2"
DEFLATED, RLE = "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.5"
JPEG_BASELINE, JPEG_LOSSLESS = "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.70"
JPEG_LS, JPEG_2000 = "1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.90"
LONG_VRS = (b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"UC", b"UN", b"UR", b"UT", b"SV", b"UV")
UNDEFINED = 0xFFFFFFFF
ROWS, COLUMNS, SAMPLES, PHOTOMETRIC, FRAMES = 0x00280010, 0x00280011, 0x00280002, 0x00280004, 0x00280008
ALLOCATED, STORED, HIGH_BIT, SIGNED = 0x00280100, 0x00280101, 0x00280102, 0x00280103
CENTER, WIDTH, INTERCEPT, SLOPE = 0x00281050, 0x00281051, 0x00281052, 0x00281053
PIXELS = 0x7FE00010

Rng = np.random.Generator
Maker = Callable[[Rng], Iterator[bytes]]


@dataclass(frozen=True, kw_only=True)
class Kind:
    name: str
    outcomes: frozenset[str]
    """Reasons it may be refused with; `DECODES` among them where it may be used."""
    make: Maker


@dataclass(frozen=True, kw_only=True)
class HostileFile:
    kind: str
    number: int
    """Within the kind, from 0."""
    blob: bytes
    outcomes: frozenset[str]


KINDS: list[Kind] = []


def kind(*outcomes: str) -> Callable[[Maker], Maker]:
    """Register a generator of blobs under its name, with how its files may end."""

    def register(make: Maker) -> Maker:
        KINDS.append(Kind(name=make.__name__, outcomes=frozenset(outcomes), make=make))
        return make

    return register


def files(seed: int = 0) -> Iterator[HostileFile]:
    """All of them; the same seed gives the same bytes."""
    for number, one in enumerate(KINDS):
        for nth, blob in enumerate(one.make(np.random.default_rng((seed, number)))):
            yield HostileFile(kind=one.name, number=nth, blob=blob, outcomes=one.outcomes)


# --- harmless pictures and how they are written


def picture(height: int = 96, width: int = 112, top: int = 255) -> np.ndarray:
    """Two bright shapes on black, with some grain: sound, and too small to be judged for what it shows."""
    y, x = np.mgrid[0:height, 0:width] / np.array([height, width]).reshape(2, 1, 1)
    limb = np.exp(-(((x - 0.4) / 0.08) ** 2)) + 0.7 * np.exp(-(((x - 0.65 + 0.1 * y) / 0.05) ** 2))
    grain = np.random.default_rng(1).normal(0, 0.01, (height, width))
    return (np.clip(0.1 + 0.7 * limb / limb.max() + grain, 0, 1) * top).astype(np.uint16)


def pillow(image: Image.Image, form: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def grey() -> Image.Image:
    return Image.fromarray(picture().astype(np.uint8))


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def ihdr(width: int, height: int, bits: int = 8, colour: int = 0, interlaced: int = 0) -> bytes:
    return chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, interlaced))


def png(*chunks: bytes) -> bytes:
    return PNG + b"".join(chunks) + chunk(b"IEND", b"")


def zeros(size: int) -> bytes:
    """So many zero bytes, deflated; a thousandth of the size."""
    packer, block = zlib.compressobj(9), bytes(2**20)
    body = b"".join(packer.compress(block) for _ in range(size >> 20))
    return body + packer.compress(bytes(size & 0xFFFFF)) + packer.flush()


def rows_of(image_HW: np.ndarray) -> bytes:
    """PNG rows without filter."""
    return b"".join(b"\0" + row.tobytes() for row in image_HW)


def element(tag: int, vr: bytes, value: bytes, length: int | None = None, order: str = "<") -> bytes:
    """One DICOM element with explicit VR; `length` lies where it is given."""
    head = struct.pack(order + "HH", tag >> 16, tag & 0xFFFF) + vr
    size = len(value) if length is None else length
    if vr in LONG_VRS:
        return head + b"\0\0" + struct.pack(order + "I", size & UNDEFINED) + value
    return head + struct.pack(order + "H", size & 0xFFFF) + value


def us(tag: int, *values: int) -> bytes:
    return element(tag, b"US", struct.pack(f"<{len(values)}H", *values))


def text(tag: int, vr: bytes, value: str) -> bytes:
    return element(tag, vr, value.encode() + b" " * (len(value) % 2))


def item(body: bytes, length: int | None = None) -> bytes:
    return struct.pack("<HHI", 0xFFFE, 0xE000, len(body) if length is None else length & UNDEFINED) + body


ITEM_END = struct.pack("<HHI", 0xFFFE, 0xE00D, 0)
SEQUENCE_END = struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)


def dicom(*elements: bytes, syntax: str = EXPLICIT, preamble: bytes = b"", sop: str = "1.1.1") -> bytes:
    """File meta, then these elements as they are."""
    uid = f"1.2.840.10008.5.1.4.1.{sop}"
    meta = text(0x00020002, b"UI", uid) + text(0x00020003, b"UI", "2.25.1") + text(0x00020010, b"UI", syntax)
    meta = meta.replace(b" ", b"\0")
    head = element(0x00020000, b"UL", struct.pack("<I", len(meta))) + meta
    return preamble[:128].ljust(128, b"\0") + b"DICM" + head + b"".join(elements)


def image_elements(
    change: dict[int, bytes] | None = None, *, rows: int = 96, columns: int = 112, bits: int = 12
) -> dict[int, bytes]:
    """The elements of a sound 12-bit image by tag, with some replaced, left out (empty) or added."""
    stored = picture(96, 112, (1 << bits) - 1)
    allocated = 16 if bits > 8 else 8
    elements = {
        0x00080016: text(0x00080016, b"UI", "1.2.840.10008.5.1.4.1.1.1.1").replace(b" ", b"\0"),
        0x00080060: text(0x00080060, b"CS", "DX"),
        0x00100010: text(0x00100010, b"PN", "SYNTHETIC^HOSTILE"),
        SAMPLES: us(SAMPLES, 1),
        PHOTOMETRIC: text(PHOTOMETRIC, b"CS", "MONOCHROME2"),
        ROWS: us(ROWS, rows),
        COLUMNS: us(COLUMNS, columns),
        ALLOCATED: us(ALLOCATED, allocated),
        STORED: us(STORED, bits),
        HIGH_BIT: us(HIGH_BIT, bits - 1),
        SIGNED: us(SIGNED, 0),
        PIXELS: element(PIXELS, b"OW", stored.astype("<u2" if bits > 8 else "u1").tobytes()),
    }
    return dict(sorted((elements | (change or {})).items()))


def sound(change: dict[int, bytes] | None = None, **options: object) -> bytes:
    """A sound DICOM file but for the change."""
    shape = {name: options.pop(name) for name in ("rows", "columns", "bits") if name in options}
    return dicom(*image_elements(change, **shape).values(), **options)  # type: ignore[arg-type]


def encapsulated(
    *fragments: bytes, syntax: str, bits: int = 8, end: bytes = SEQUENCE_END, **shape: int
) -> bytes:
    """A DICOM file whose pixel data are these items."""
    pixels = element(PIXELS, b"OB", b"".join(fragments) + end, UNDEFINED)
    return sound({PIXELS: pixels}, syntax=syntax, bits=bits, **shape)


def even(body: bytes) -> bytes:
    return body + b"\0" * (len(body) % 2)


def rle(segments: list[bytes], offsets: list[int] | None = None, count: int | None = None) -> bytes:
    """One RLE frame (DICOM PS3.5 Annex G), whose header may lie."""
    starts = [64 + sum(map(len, segments[:n])) for n in range(len(segments))] if offsets is None else offsets
    numbers = [len(segments) if count is None else count, *starts]
    return struct.pack("<16I", *(numbers + [0] * 16)[:16]) + b"".join(segments)


def rle_segment(values: bytes) -> bytes:
    """Literal runs only."""
    runs = [values[start : start + 128] for start in range(0, len(values), 128)]
    return even(b"".join(bytes([len(run) - 1]) + run for run in runs))


def flipped(blob: bytes, rng: Rng, count: int) -> Iterator[bytes]:
    for _ in range(count):
        spoiled = bytearray(blob)
        for place in rng.integers(0, len(blob), 1 + int(rng.integers(6))):
            spoiled[place] ^= 1 << int(rng.integers(8))
        yield bytes(spoiled)


def tenths(blob: bytes) -> Iterator[bytes]:
    return (blob[: len(blob) * tenth // 10] for tenth in range(1, 10))


# --- files that are no image


@kind("empty")
def nothing(rng: Rng) -> Iterator[bytes]:
    yield b""


@kind("unknown_type")
def one_byte(rng: Rng) -> Iterator[bytes]:
    yield from (bytes([value]) for value in (0x00, 0x0A, 0x3C, 0x89, 0xFF))


@kind("unknown_type")
def only_zeros(rng: Rng) -> Iterator[bytes]:
    yield from (bytes(size) for size in (2, 132, 4096, 2**20))


@kind("unknown_type")
def web_page_named_dcm(rng: Rng) -> Iterator[bytes]:
    yield b"<!DOCTYPE html><html><body>404 Not Found</body></html>"
    yield b"<html>" + b"<p>please log in</p>" * 500 + b"</html>"
    yield b"\xef\xbb\xbf<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>"


@kind("unknown_type")
def text_named_dcm(rng: Rng) -> Iterator[bytes]:
    yield b"hello there\n"
    yield "Röntgen\n".encode() * 100
    yield "path,label\n".encode("utf-16")


@kind("unknown_type")
def archive_named_dcm(rng: Rng) -> Iterator[bytes]:
    for depth in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w", depth) as archive:
            archive.writestr("image.dcm", sound())
            archive.writestr("zeros", bytes(2**20))
        yield file.getvalue()


@kind("unknown_type")
def pictures_of_other_types(rng: Rng) -> Iterator[bytes]:
    for form in ("BMP", "GIF", "TIFF", "WEBP", "PPM", "ICO"):
        yield pillow(grey(), form)
    yield b"%PDF-1.7\n1 0 obj\n<<>>\nendobj\n"


@kind("corrupt", "truncated", "no_pixels")
def magic_and_nothing_else(rng: Rng) -> Iterator[bytes]:
    yield from (PNG, b"\xff\xd8\xff", b"\xff\xd8\xff\xd9", bytes(128) + b"DICM", dicom())


# --- PNG


@kind("blank", "too_much_memory", "corrupt")
def png_that_unpacks_to_gigabytes(rng: Rng) -> Iterator[bytes]:
    body = chunk(b"IDAT", zeros(300 * 2**20))
    for width, height, bits, colour in ((8000, 8000, 8, 0), (8000, 8000, 8, 6), (8000, 8000, 16, 6)):
        yield png(ihdr(width, height, bits, colour), body)


@kind("blank", "corrupt", "truncated", "decodes")
def png_with_more_data_than_its_header_says(rng: Rng) -> Iterator[bytes]:
    body = zeros(200 * 2**20)
    yield png(ihdr(100, 100), chunk(b"IDAT", body))
    yield png(ihdr(100, 100), *(chunk(b"IDAT", body[n :: len(body)]) for n in range(1)), chunk(b"IDAT", body))
    rows = rows_of(picture().astype(np.uint8))
    yield png(ihdr(112, 96), chunk(b"IDAT", zlib.compress(rows + bytes(50 * 2**20))))


@kind("corrupt", "decodes")
def png_text_that_unpacks_to_megabytes(rng: Rng) -> Iterator[bytes]:
    body, rows = zeros(200 * 2**20), chunk(b"IDAT", zlib.compress(rows_of(picture().astype(np.uint8))))
    yield png(ihdr(112, 96), chunk(b"zTXt", b"Comment\0\0" + body), rows)
    yield png(ihdr(112, 96), rows, chunk(b"zTXt", b"Comment\0\0" + body))
    yield png(ihdr(112, 96), chunk(b"iTXt", b"Comment\0\1\0\0\0" + body), rows)
    yield png(ihdr(112, 96), *[chunk(b"zTXt", b"Comment\0\0" + zeros(2**20))] * 200, rows)


@kind("corrupt", "decodes")
def png_profile_that_unpacks_to_megabytes(rng: Rng) -> Iterator[bytes]:
    rows = chunk(b"IDAT", zlib.compress(rows_of(picture().astype(np.uint8))))
    for name in (b"icc\0\0", b"\0\0", b"icc\0\7"):
        yield png(ihdr(112, 96), chunk(b"iCCP", name + zeros(200 * 2**20)), rows)


@kind("too_large", "corrupt")
def png_with_a_huge_header(rng: Rng) -> Iterator[bytes]:
    for width, height in ((65535, 65535), (2**31 - 1, 2**31 - 1), (2**32 - 1, 1000), (10**6, 100)):
        for colour in (0, 6):
            yield png(ihdr(width, height, 8, colour), chunk(b"IDAT", zlib.compress(bytes(100))))


@kind("corrupt", "too_small", "truncated")
def png_with_an_empty_header(rng: Rng) -> Iterator[bytes]:
    for width, height in ((0, 0), (0, 100), (100, 0), (1, 1)):
        yield png(ihdr(width, height), chunk(b"IDAT", zlib.compress(bytes(100))))


@kind("corrupt", "truncated")
def png_with_impossible_depths(rng: Rng) -> Iterator[bytes]:
    body = chunk(b"IDAT", zlib.compress(bytes(96 * 113)))
    for bits, colour in ((3, 0), (0, 0), (32, 0), (16, 3), (8, 5), (4, 2)):
        yield png(ihdr(112, 96, bits, colour), body)


@kind("decodes")
def png_of_16_bits(rng: Rng) -> Iterator[bytes]:
    for top in (65535, 4095, 1023):
        yield pillow(Image.fromarray(picture(top=top)), "PNG")
    rgb = np.repeat(picture(top=65535).astype(">u2")[..., None], 3, axis=2).reshape(96, -1)
    yield png(ihdr(112, 96, 16, 2), chunk(b"IDAT", zlib.compress(rows_of(rgb))))


@kind("decodes")
def png_with_palette_or_alpha(rng: Rng) -> Iterator[bytes]:
    yield pillow(grey().convert("P"), "PNG")
    yield pillow(grey().convert("P"), "PNG", transparency=0)
    yield pillow(grey().convert("LA"), "PNG")
    yield pillow(grey().convert("1"), "PNG")
    yield pillow(grey(), "PNG", transparency=3)


@kind("decodes")
def interlaced_png(rng: Rng) -> Iterator[bytes]:
    """Adam7 (PNG specification, 8.2)."""
    image = picture().astype(np.uint8)
    passes = (
        (0, 0, 8, 8),
        (0, 4, 8, 8),
        (4, 0, 8, 4),
        (0, 2, 4, 4),
        (2, 0, 4, 2),
        (0, 1, 2, 2),
        (1, 0, 2, 1),
    )
    rows = b"".join(rows_of(image[top::down, left::right]) for top, left, down, right in passes)
    yield png(ihdr(112, 96, interlaced=1), chunk(b"IDAT", zlib.compress(rows)))


@kind("decodes")
def animated_png(rng: Rng) -> Iterator[bytes]:
    frames = [grey().rotate(angle) for angle in (5, 10, 15)]
    yield pillow(grey(), "PNG", save_all=True, append_images=frames)
    yield pillow(grey(), "PNG", save_all=True, append_images=frames, default_image=True)
    rows = chunk(b"IDAT", zlib.compress(rows_of(picture().astype(np.uint8))))
    yield png(ihdr(112, 96), chunk(b"acTL", struct.pack(">II", 2**31 - 1, 0)), rows)


@kind("corrupt", "truncated", "decodes", "blank")
def png_with_broken_chunks(rng: Rng) -> Iterator[bytes]:
    rows = chunk(b"IDAT", zlib.compress(rows_of(picture().astype(np.uint8))))
    yield PNG + rows + ihdr(112, 96)
    yield png(ihdr(112, 96))
    yield png(ihdr(112, 96), ihdr(50, 50), rows)
    yield png(ihdr(112, 96), chunk(b"tRNS", b"\0"), rows)
    yield png(ihdr(112, 96, 8, 3), rows)
    yield png(ihdr(112, 96), rows[:-4] + b"\0\0\0\0")
    for length in (2**31 - 1, 2**31, 2**32 - 1):
        yield png(ihdr(112, 96), struct.pack(">I", length) + rows[4:])
    yield png(ihdr(112, 96), chunk(b"PLTE", bytes(7)), chunk(b"gAMA", b""), chunk(b"cHRM", b"1"), rows)
    yield png(ihdr(112, 96), *[chunk(b"IDAT", b"")] * 5000, rows)


@kind(*DAMAGED)
def png_cut_at_each_tenth(rng: Rng) -> Iterator[bytes]:
    return tenths(pillow(grey(), "PNG"))


@kind(*ANYTHING)
def png_with_flipped_bits(rng: Rng) -> Iterator[bytes]:
    return flipped(pillow(grey(), "PNG"), rng, 25)


@kind("decodes")
def png_that_is_also_a_zip(rng: Rng) -> Iterator[bytes]:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a.txt", "hidden")
    yield pillow(grey(), "PNG") + file.getvalue()
    rows = chunk(b"IDAT", zlib.compress(rows_of(picture().astype(np.uint8))))
    yield png(ihdr(112, 96), chunk(b"zIPf", file.getvalue()), rows)


# --- JPEG


def segment(marker: int, body: bytes) -> bytes:
    return b"\xff" + bytes([marker]) + struct.pack(">H", len(body) + 2) + body


def patched_size(jpeg: bytes, height: int, width: int) -> bytes:
    """The JPEG with another size in its frame header."""
    start = max(jpeg.find(b"\xff\xc0"), jpeg.find(b"\xff\xc2"))
    return jpeg[: start + 5] + struct.pack(">HH", height, width) + jpeg[start + 9 :]


@kind("too_large", "corrupt", "too_small")
def jpeg_with_a_huge_or_empty_header(rng: Rng) -> Iterator[bytes]:
    jpeg = pillow(grey(), "JPEG")
    for height, width in ((65535, 65535), (65500, 65500), (65535, 1000), (0, 0), (0, 112), (1, 1)):
        yield patched_size(jpeg, height, width)
    yield patched_size(pillow(grey(), "JPEG", progressive=True), 65535, 65535)


@kind("truncated", "corrupt", "blank", "too_much_memory")
def jpeg_that_claims_64_megapixels(rng: Rng) -> Iterator[bytes]:
    for mode in ("L", "RGB", "CMYK"):
        yield patched_size(pillow(grey().convert(mode), "JPEG"), 8000, 8000)
    yield patched_size(pillow(grey(), "JPEG", progressive=True), 8000, 8000)


@kind("too_slow", "blank", "corrupt", "truncated")
def jpeg_with_thousands_of_scans(rng: Rng) -> Iterator[bytes]:
    """Each pass goes over all 16 megapixels once more for some hundred bytes."""
    jpeg = pillow(Image.new("L", (4000, 4000), 90), "JPEG", progressive=True)
    scan = jpeg.rfind(b"\xff\xda")
    yield jpeg[:-2] + jpeg[scan:-2] * 2000 + b"\xff\xd9"


@kind("decodes", "colour", "corrupt")
def cmyk_and_ycck_jpeg(rng: Rng) -> Iterator[bytes]:
    for image in (grey(), Image.merge("RGB", [grey(), grey().rotate(90).resize((112, 96)), grey()])):
        cmyk = pillow(image.convert("CMYK"), "JPEG")
        adobe = cmyk.find(b"Adobe")
        yield cmyk
        yield cmyk[: adobe + 11] + b"\x02" + cmyk[adobe + 12 :]
        yield cmyk.replace(b"Adobe", b"Eboda")


@kind("decodes")
def progressive_jpeg(rng: Rng) -> Iterator[bytes]:
    for mode in ("L", "RGB"):
        yield pillow(grey().convert(mode), "JPEG", progressive=True)
        yield pillow(grey().convert(mode), "JPEG", progressive=True, restart_marker_rows=1)


@kind(*DAMAGED)
def jpeg_cut_at_each_tenth(rng: Rng) -> Iterator[bytes]:
    return tenths(pillow(grey(), "JPEG", quality=95))


@kind(*ANYTHING)
def jpeg_with_flipped_bits(rng: Rng) -> Iterator[bytes]:
    return flipped(pillow(grey(), "JPEG"), rng, 25)


@kind("decodes")
def jpeg_that_is_also_a_web_page(rng: Rng) -> Iterator[bytes]:
    jpeg, page = pillow(grey(), "JPEG"), b"<html><script>alert(1)</script></html>"
    yield jpeg[:2] + segment(0xFE, page) + jpeg[2:]
    yield jpeg + page
    yield jpeg[:2] + segment(0xE1, page) + jpeg[2:] + sound()


@kind("decodes", "corrupt")
def exif_oddities(rng: Rng) -> Iterator[bytes]:
    jpeg = pillow(grey(), "JPEG")
    for value in (0, 3, 6, 8, 9, 65535):
        exif = Image.Exif()
        exif[0x0112] = value
        yield pillow(grey(), "JPEG", exif=exif)
    tiff = b"Exif\0\0II*\0"
    for body in (b"\xff\xff\xff\xff", b"\x08\0\0\0\xff\xff", b"\x08\0\0\0" + b"\1\0" + bytes(12), b""):
        yield jpeg[:2] + segment(0xE1, tiff + body) + jpeg[2:]
    endless = struct.pack("<IHHHII", 8, 1, 0x8769, 4, 1, 8) + struct.pack("<I", 8)
    yield jpeg[:2] + segment(0xE1, tiff + endless) + jpeg[2:]
    words = b"II*\0" + struct.pack("<IHHHI4sI", 8, 1, 0x0112, 2, 4, b"abc\0", 0)
    yield png(
        ihdr(112, 96),
        chunk(b"eXIf", words),
        chunk(b"IDAT", zlib.compress(rows_of(picture().astype(np.uint8)))),
    )


@kind("decodes", "corrupt")
def icc_oddities(rng: Rng) -> Iterator[bytes]:
    jpeg = pillow(grey(), "JPEG")
    for body in (b"\1\1", b"\1\xff" + bytes(100), b"\0\0" + bytes(3), b"\2\1" + rng.bytes(5000), b""):
        yield jpeg[:2] + segment(0xE2, b"ICC_PROFILE\0" + body) + jpeg[2:]
    yield pillow(grey(), "PNG", icc_profile=rng.bytes(3000))


@kind("corrupt", "truncated", "decodes", "unsupported", "blank")
def jpeg_with_broken_segments(rng: Rng) -> Iterator[bytes]:
    jpeg = pillow(grey(), "JPEG")
    frame = jpeg.find(b"\xff\xc0")
    for process in (0xC3, 0xC5, 0xC9, 0xCB, 0xF7):
        yield jpeg[: frame + 1] + bytes([process]) + jpeg[frame + 2 :]
    yield jpeg[: frame + 4] + b"\x0c" + jpeg[frame + 5 :]
    yield jpeg[: frame + 9] + b"\xff" + jpeg[frame + 10 :]
    for marker in (b"\xff\xdb", b"\xff\xc4", b"\xff\xda"):
        start = jpeg.find(marker)
        yield jpeg[:start] + jpeg[start : start + 2] + b"\0\0" + jpeg[start + 4 :]
        yield jpeg[:start] + jpeg[start : start + 2] + b"\xff\xff" + jpeg[start + 4 :]
    yield jpeg[:2] + segment(0xDD, b"\0\1") + jpeg[2:]
    yield jpeg[:2] + jpeg[2:-2] * 20 + jpeg[-2:]


# --- DICOM


@kind("unsupported", "too_large", "too_much_memory", "corrupt", "no_pixels", "truncated")
def dicom_deflated_to_gigabytes(rng: Rng) -> Iterator[bytes]:
    raw = zeros(300 * 2**20)[2:-4]
    yield dicom(raw, syntax=DEFLATED)
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    head = b"".join(list(image_elements(rows=65535, columns=65535).values())[:-1])
    start = element(PIXELS, b"OW", b"", 2**32 - 2)
    body = packer.compress(head + start) + b"".join(packer.compress(bytes(2**20)) for _ in range(300))
    yield dicom(body + packer.flush(), syntax=DEFLATED)


@kind("too_large")
def dicom_with_a_huge_header(rng: Rng) -> Iterator[bytes]:
    for rows, columns in ((65535, 65535), (65535, 2000), (8001, 8001)):
        yield sound(rows=rows, columns=columns)
        yield encapsulated(item(b""), item(bytes(100)), syntax=JPEG_2000, rows=rows, columns=columns)
        yield encapsulated(item(b""), item(rle([bytes(2)])), syntax=RLE, rows=rows, columns=columns)


@kind("corrupt", "too_large", "too_much_memory", "too_slow", "truncated", "unsupported")
def dicom_around_a_codestream_of_another_size(rng: Rng) -> Iterator[bytes]:
    jpeg_2000 = pillow(grey(), "JPEG2000", no_jp2=True)
    size = jpeg_2000.find(b"\xff\x51") + 6
    for width, height in ((60000, 60000), (2**31 - 1, 2**31 - 1), (20000, 20000), (300, 300)):
        numbers = struct.pack(">8I", width, height, 0, 0, width, height, 0, 0)
        yield encapsulated(
            item(b""), item(even(jpeg_2000[:size] + numbers + jpeg_2000[size + 32 :])), syntax=JPEG_2000
        )
    jpeg = pillow(grey(), "JPEG")
    for height, width in ((65500, 65500), (16000, 16000)):
        yield encapsulated(item(b""), item(even(patched_size(jpeg, height, width))), syntax=JPEG_BASELINE)
        lossless = patched_size(jpeg, height, width).replace(b"\xff\xc0", b"\xff\xc3", 1)
        yield encapsulated(item(b""), item(even(lossless)), syntax=JPEG_LOSSLESS)
    jpeg_ls = b"\xff\xd8" + segment(0xF7, struct.pack(">BHHBBBB", 8, 65000, 65000, 1, 1, 0x11, 0))
    yield encapsulated(
        item(b""), item(even(jpeg_ls + segment(0xDA, b"\1\1\0\0\0\0") + bytes(50))), syntax=JPEG_LS
    )


@kind("decodes", "corrupt", "truncated", "no_pixels", "unsupported")
def dicom_nested_500_deep(rng: Rng) -> Iterator[bytes]:
    for depth in (500, 5000):
        tag = struct.pack("<HH", 0x0008, 0x1140) + b"SQ\0\0" + struct.pack("<I", UNDEFINED)
        opening = (tag + struct.pack("<HHI", 0xFFFE, 0xE000, UNDEFINED)) * depth
        yield sound({0x00081140: opening + (ITEM_END + SEQUENCE_END) * depth})
        yield sound({0x00081140: opening})
    inner = b""
    for _ in range(500):
        inner = element(0x00081140, b"SQ", item(inner))
    yield sound({0x00081140: inner})
    private = b""
    for _ in range(500):
        private = element(0x00091001, b"SQ", item(private + ITEM_END, UNDEFINED) + SEQUENCE_END, UNDEFINED)
    yield sound({0x00091001: private})


@kind("decodes")
def dicom_with_another_file_in_its_preamble(rng: Rng) -> Iterator[bytes]:
    yield sound(preamble=b"II*\0\x90\0\0\0")
    yield sound(preamble=b"MM\0*\0\0\0\x90")
    yield sound(preamble=b"MZ\x90\0" + bytes(56) + b"\x80\0\0\0")
    yield sound(preamble=b"#!/bin/sh\nrm -rf /tmp/x\nexit\n")
    yield sound(preamble=b"PK\3\4")


@kind("no_pixels", "unsupported", "corrupt", "truncated")
def dicomdir(rng: Rng) -> Iterator[bytes]:
    record = text(0x00041430, b"CS", "PATIENT") + text(0x00100010, b"PN", "SYNTHETIC^HOSTILE")
    records = element(0x00041220, b"SQ", item(record))
    yield dicom(text(0x00041130, b"CS", "SET"), records, sop="1.3.10").replace(
        b"4.1.1.3.10", b"1.3.10\0\0\0\0"
    )
    yield dicom(text(0x00041130, b"CS", "SET"), sop="1.3.10")
    yield dicom(element(0x00041220, b"SQ", item(record, 2**31)), sop="1.3.10")


@kind(
    "decodes",
    "corrupt",
    "truncated",
    "no_pixels",
    "unsupported",
    "blank",
    "too_small",
    "too_large",
    "multi_frame",
)
def dicom_with_wrong_value_representations(rng: Rng) -> Iterator[bytes]:
    yield sound({ROWS: text(ROWS, b"LO", "96")})
    yield sound({ROWS: element(ROWS, b"SQ", b"")})
    yield sound({ROWS: element(ROWS, b"US", b"\x60")})
    yield sound({COLUMNS: element(COLUMNS, b"FD", struct.pack("<d", math.nan))})
    yield sound({ALLOCATED: text(ALLOCATED, b"DS", "16")})
    yield sound({ALLOCATED: text(ALLOCATED, b"PN", "16")})
    yield sound({PHOTOMETRIC: us(PHOTOMETRIC, 2)})
    yield sound({ROWS: us(ROWS, 96, 96)})
    yield sound({SAMPLES: element(SAMPLES, b"ZZ", b"\1\0")})
    for vr in (b"SQ", b"UN", b"OF", b"LT", b"??"):
        yield sound({PIXELS: element(PIXELS, vr, picture(top=4095).tobytes())})
    yield sound({FRAMES: us(FRAMES, 1)})
    yield sound({0x00080005: us(0x00080005, 1)})


@kind("decodes", "corrupt", "truncated", "no_pixels", "unsupported", "blank", "too_small")
def dicom_with_lengths_that_lie(rng: Rng) -> Iterator[bytes]:
    body = picture(top=4095).tobytes()
    for length in (len(body) + 1, len(body) + 2, 2**31 - 1, 2**31, 2**32 - 2, len(body) - 1, 1, 0):
        yield sound({PIXELS: element(PIXELS, b"OW", body, length)})
    for length in (0xFFFF, 0x7FFF, 3, 1):
        yield sound({0x00100010: element(0x00100010, b"PN", b"A^B ", length)})
        yield sound({ROWS: element(ROWS, b"US", b"\x60\0", length)})
    yield sound({0x00091001: element(0x00091001, b"OB", b"12", 2**32 - 2)})
    whole = sound()
    yield whole[:140] + struct.pack("<I", 2**31) + whole[144:]
    yield whole[:140] + struct.pack("<I", 0) + whole[144:]


@kind("decodes", "corrupt", "truncated", "no_pixels", "unsupported")
def dicom_with_undefined_lengths_and_no_end(rng: Rng) -> Iterator[bytes]:
    body = picture(top=4095).tobytes()
    yield sound({PIXELS: element(PIXELS, b"OW", body, UNDEFINED)})
    yield sound({PIXELS: element(PIXELS, b"OB", body, UNDEFINED)})
    yield sound({0x00081140: element(0x00081140, b"SQ", item(b"", UNDEFINED), UNDEFINED)})
    yield sound({0x00081140: element(0x00081140, b"SQ", b"", UNDEFINED)})
    yield sound({0x00091001: element(0x00091001, b"UN", b"1234", UNDEFINED)})
    yield sound({0x00091001: element(0x00091001, b"OB", item(b"1234"), UNDEFINED)})


@kind("decodes", "corrupt", "truncated", "no_pixels", "unsupported", "blank", "multi_frame")
def encapsulated_dicom_with_missing_fragments(rng: Rng) -> Iterator[bytes]:
    for syntax in (JPEG_BASELINE, JPEG_LOSSLESS, JPEG_LS, JPEG_2000, RLE):
        yield encapsulated(syntax=syntax)
        yield encapsulated(item(b""), syntax=syntax)
        yield encapsulated(item(b""), item(b""), syntax=syntax)
        yield encapsulated(item(b""), item(b"\0" * 10, 2**31), syntax=syntax)
        yield encapsulated(item(struct.pack("<I", 10**6)), item(b"\0" * 10), syntax=syntax, end=b"")
    jpeg = even(pillow(grey(), "JPEG"))
    yield encapsulated(item(b""), item(jpeg[: len(jpeg) // 4 * 2]), syntax=JPEG_BASELINE)
    yield encapsulated(item(b""), item(jpeg), syntax=JPEG_2000)
    yield encapsulated(item(b""), item(jpeg), syntax=RLE)


@kind("decodes")
def encapsulated_dicom_that_is_sound(rng: Rng) -> Iterator[bytes]:
    jpeg = even(pillow(grey(), "JPEG"))
    yield encapsulated(item(b""), item(jpeg), syntax=JPEG_BASELINE)
    yield encapsulated(item(b""), item(jpeg[:1000]), item(jpeg[1000:]), syntax=JPEG_BASELINE)
    yield encapsulated(item(b""), item(even(pillow(grey(), "JPEG2000", no_jp2=True))), syntax=JPEG_2000)
    yield encapsulated(item(b""), item(rle([rle_segment(picture().astype(np.uint8).tobytes())])), syntax=RLE)


@kind("decodes", "corrupt", "truncated", "unsupported", "blank")
def rle_with_wrong_segments(rng: Rng) -> Iterator[bytes]:
    good = rle_segment(picture().astype(np.uint8).tobytes())
    for offsets in ([0], [63], [10**6], [2**32 - 1], [64, 64], [1000, 64]):
        yield encapsulated(item(b""), item(even(rle([good], offsets))), syntax=RLE)
    for count in (0, 2, 15, 16, 2**32 - 1):
        yield encapsulated(item(b""), item(even(rle([good], count=count))), syntax=RLE)
    yield encapsulated(item(b""), item(rle([b"\x81\0" * 5000])), syntax=RLE)
    yield encapsulated(item(b""), item(rle([b"\x80" * 5000])), syntax=RLE)
    yield encapsulated(item(b""), item(rle([good[:500]])), syntax=RLE)
    yield encapsulated(item(b""), item(rle([good * 20])), syntax=RLE)


@kind("decodes", "corrupt", "truncated", "unsupported", "blank")
def dicom_with_impossible_bits(rng: Rng) -> Iterator[bytes]:
    for allocated, stored, high in (
        (8, 12, 11),
        (16, 17, 16),
        (16, 0, 0),
        (0, 0, 0),
        (7, 7, 6),
        (64, 64, 63),
    ):
        yield sound(
            {ALLOCATED: us(ALLOCATED, allocated), STORED: us(STORED, stored), HIGH_BIT: us(HIGH_BIT, high)}
        )
    yield sound({HIGH_BIT: us(HIGH_BIT, 3)})
    yield sound({HIGH_BIT: us(HIGH_BIT, 60000)})
    yield sound({SIGNED: us(SIGNED, 7)})
    yield sound({ALLOCATED: b""})
    yield sound({ALLOCATED: us(ALLOCATED, 1), STORED: us(STORED, 1), HIGH_BIT: us(HIGH_BIT, 0)})
    yield sound({ALLOCATED: us(ALLOCATED, 32), STORED: us(STORED, 32), HIGH_BIT: us(HIGH_BIT, 31)})


@kind("decodes", "corrupt", "truncated", "unsupported", "too_small")
def dicom_whose_pixels_do_not_fill_the_image(rng: Rng) -> Iterator[bytes]:
    for rows, columns in ((97, 112), (960, 1120), (96, 56), (95, 111), (0, 112), (1, 1), (7999, 7999)):
        yield sound(rows=rows, columns=columns)
    yield sound({ROWS: b""})


@kind("multi_frame", "corrupt", "truncated", "decodes", "unsupported")
def dicom_of_several_frames(rng: Rng) -> Iterator[bytes]:
    twice = element(PIXELS, b"OW", picture(top=4095).tobytes() * 2)
    for frames in ("2", "999999999", "-1", "0", "2147483648", "abc", "1\\2", "1e9"):
        yield sound({FRAMES: text(FRAMES, b"IS", frames), PIXELS: twice})


@kind("no_pixels", "unsupported", "corrupt", "truncated")
def dicom_with_float_pixels_or_none(rng: Rng) -> Iterator[bytes]:
    values = picture().astype("<f4")
    yield sound({PIXELS: b"", 0x7FE00008: element(0x7FE00008, b"OF", values.tobytes())})
    yield sound({PIXELS: b"", 0x7FE00009: element(0x7FE00009, b"OD", values.astype("<f8").tobytes())})
    yield sound({PIXELS: b""})
    yield sound({PIXELS: element(PIXELS, b"OW", b"")})
    yield sound({PIXELS: b"", 0x00420011: element(0x00420011, b"OB", b"%PDF-1.7 ")}, sop="1.104.1")


@kind("unsupported", "corrupt", "truncated", "no_pixels", "decodes")
def dicom_of_unknown_transfer_syntax(rng: Rng) -> Iterator[bytes]:
    for syntax in ("1.2.840.113619.5.2", "2.25.99", "", "not a uid", "1.2.840.10008.1.2.4.100", "1.2.3" * 20):
        yield sound(syntax=syntax)
    yield sound(syntax=BIG)
    yield sound(syntax=IMPLICIT)


@kind("decodes", "corrupt", "truncated")
def dicom_with_huge_private_elements(rng: Rng) -> Iterator[bytes]:
    yield sound({0x00091001: element(0x00091001, b"OB", bytes(8 * 2**20))})
    yield sound({0x00091000 + n: text(0x00091000 + n, b"LO", "x" * 60) for n in range(0xFFF)})
    yield sound({0x00091001: element(0x00091001, b"SQ", item(text(0x00100010, b"PN", "A^B")) * 5000)})
    yield sound({0x00091001: element(0x00091001, b"UN", rng.bytes(2**20))})


@kind("decodes", "corrupt", "blank", "unsupported", "colour", "truncated")
def dicom_with_nonsense_of_photometry(rng: Rng) -> Iterator[bytes]:
    for name in ("", "RGB", "PALETTE COLOR", "YBR_FULL_422", "HSV", "monochrome2", "MONOCHROME1\\RGB"):
        yield sound({PHOTOMETRIC: text(PHOTOMETRIC, b"CS", name)})
    for samples in (0, 2, 3, 4, 65535):
        yield sound({SAMPLES: us(SAMPLES, samples)})
    noise = rng.integers(0, 256, (96, 112, 3), np.uint8).tobytes()
    colour = {
        PHOTOMETRIC: text(PHOTOMETRIC, b"CS", "RGB"),
        SAMPLES: us(SAMPLES, 3),
        0x00280006: us(0x00280006, 0),
    }
    yield sound(colour | {PIXELS: element(PIXELS, b"OB", noise)}, bits=8)
    yield sound(colour | {PIXELS: element(PIXELS, b"OB", noise), 0x00280006: us(0x00280006, 9)}, bits=8)


@kind("decodes", "corrupt", "blank", "unsupported", "truncated", "inverted")
def dicom_with_nonsense_of_brightness(rng: Rng) -> Iterator[bytes]:
    for slope in ("0", "nan", "inf", "1e308", "-1e-308", "abc", "1\\2"):
        yield sound({SLOPE: text(SLOPE, b"DS", slope), INTERCEPT: text(INTERCEPT, b"DS", "0")})
    for center, width in (
        ("0", "-5"),
        ("nan", "10"),
        ("1e300", "1"),
        ("", ""),
        ("abc", "100"),
        ("5\\6", "1\\0"),
    ):
        yield sound({CENTER: text(CENTER, b"DS", center), WIDTH: text(WIDTH, b"DS", width)})
    table = us(0x00283002, 0, 0, 16) + element(0x00283006, b"US", b"")
    short = us(0x00283002, 65535, 0, 16) + us(0x00283006, 1, 2, 3)
    for lut in (table, short, b""):
        yield sound({0x00283010: element(0x00283010, b"SQ", item(lut))})
        yield sound({0x00283000: element(0x00283000, b"SQ", item(lut))})


@kind("decodes", "corrupt")
def dicom_with_unknown_characters(rng: Rng) -> Iterator[bytes]:
    for name in ("ISO_IR 999", "ISO 2022 IR 87\\ISO 2022 IR 13", "utf-7", "\\\\\\", "x" * 500):
        yield sound(
            {0x00080005: text(0x00080005, b"CS", name), 0x00100010: text(0x00100010, b"PN", "\xff\x1b$B")}
        )


@kind(*DAMAGED, "no_pixels", "unknown_type")
def dicom_cut_at_each_tenth(rng: Rng) -> Iterator[bytes]:
    return tenths(sound())


@kind(*ANYTHING)
def dicom_with_flipped_bits(rng: Rng) -> Iterator[bytes]:
    whole = sound()
    yield from flipped(whole, rng, 10)
    head = len(whole) - 96 * 112 * 2
    yield from (one + whole[head:] for one in flipped(whole[:head], rng, 40))


@kind(*ANYTHING)
def compressed_dicom_with_flipped_bits(rng: Rng) -> Iterator[bytes]:
    for blob in encapsulated_dicom_that_is_sound(rng):
        yield from flipped(blob, rng, 8)


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for one in files():
        (folder / f"{one.kind}_{one.number:02d}").write_bytes(one.blob)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
