"""`data.imaging.preprocess`: every file type gives the same pixels, and every unusable file its reason."""

import io
import struct
import zlib

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
)

from data.imaging.preprocess import (
    BadImageError,
    PixelConfig,
    UnknownTypeError,
    decode,
    encode_png,
    scale,
    sniff,
    to_model_input,
    to_pixels,
)

CONFIG = PixelConfig(side=64)


def gradient(height: int = 80, width: int = 100, top: int = 255) -> np.ndarray:
    """A picture with a bright corner, so that turning or inverting it is noticed."""
    rows, columns = np.mgrid[0:height, 0:width]
    return ((rows + 2 * columns) * top // (height + 2 * width)).astype(np.uint16)


def raster(grey_HW: np.ndarray, kind: str = "PNG", mode: str | None = None, **options: object) -> bytes:
    image = Image.fromarray(grey_HW)
    file = io.BytesIO()
    (image.convert(mode) if mode else image).save(file, kind, **options)
    return file.getvalue()


def dicom(
    stored_HW: np.ndarray, *, bits: int = 12, photometric: str = "MONOCHROME2", **fields: object
) -> bytes:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = DigitalXRayImageStorageForPresentation
    meta.MediaStorageSOPInstanceUID = "2.25.1"
    meta.TransferSyntaxUID = fields.pop("syntax", ExplicitVRLittleEndian)
    file = io.BytesIO()
    data = FileDataset(file, {}, file_meta=meta, preamble=b"\0" * 128)
    data.SOPClassUID, data.SOPInstanceUID = DigitalXRayImageStorageForPresentation, "2.25.1"
    data.PatientName = "DOE^JANE"
    data.SamplesPerPixel, data.PixelRepresentation, data.PhotometricInterpretation = 1, 0, photometric
    data.Rows, data.Columns = stored_HW.shape[-2:]
    data.BitsAllocated, data.BitsStored, data.HighBit = 16, bits, bits - 1
    data.PixelData = stored_HW.astype("<u2").tobytes()
    for name, value in fields.items():
        if value is None:
            delattr(data, name)
        else:
            setattr(data, name, value)
    pydicom.dcmwrite(file, data, enforce_file_format=True)
    return file.getvalue()


def reason(blob: bytes) -> str:
    with pytest.raises(BadImageError) as caught:
        to_pixels(blob, CONFIG)
    assert "\n" not in str(caught.value)
    return caught.value.reason


def test_the_same_bytes_give_the_same_pixels_each_time() -> None:
    blob = raster(gradient().astype(np.uint8), "JPEG")
    assert np.array_equal(to_pixels(blob, CONFIG), to_pixels(blob, CONFIG))


def test_monochrome1_and_monochrome2_give_the_same_pixels() -> None:
    stored_HW = gradient(top=4095)
    one = dicom(4095 - stored_HW, photometric="MONOCHROME1")
    assert np.array_equal(to_pixels(one, CONFIG), to_pixels(dicom(stored_HW), CONFIG))


def test_png_of_8_and_16_bits_and_dicom_of_12_agree_within_rounding() -> None:
    eight = to_pixels(raster(gradient().astype(np.uint8)), CONFIG).astype(int)
    for blob in (raster(gradient(top=65535)), raster(gradient(top=4095)), dicom(gradient(top=4095))):
        assert np.abs(to_pixels(blob, CONFIG) - eight).max() <= 3


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "P"])
def test_colour_alpha_and_palette_png_give_the_pixels_of_the_grey_one(mode: str) -> None:
    grey_HW = gradient().astype(np.uint8)
    expected = to_pixels(raster(grey_HW), CONFIG).astype(int)
    assert np.abs(to_pixels(raster(grey_HW, mode=mode), CONFIG) - expected).max() <= 2


def test_what_is_transparent_counts_as_air() -> None:
    grey_HW = gradient().astype(np.uint8)
    image = Image.fromarray(grey_HW).convert("RGBA")
    image.paste((255, 255, 255, 0), (0, 0, 50, 80))
    file = io.BytesIO()
    image.save(file, "PNG")
    assert decode(file.getvalue()).shown_HW[:, :50].max() == 0


def test_a_jpeg_is_turned_upright_as_its_exif_orientation_asks() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    grey_HW = gradient().astype(np.uint8)
    turned = decode(raster(grey_HW, "JPEG", exif=exif, quality=95))
    assert (turned.width, turned.height) == (80, 100)
    assert np.abs(np.rot90(grey_HW, -1).astype(int) - turned.shown_HW).max() < 12


def test_a_window_decides_what_is_shown() -> None:
    stored_HW = gradient(top=4095)
    shown_HW = decode(dicom(stored_HW, WindowCenter=1000, WindowWidth=400)).shown_HW
    assert (shown_HW[stored_HW < 790] == 0).all()
    assert (shown_HW[stored_HW > 1210] == 255).all()
    middle = shown_HW[np.abs(stored_HW.astype(int) - 1000) < 12]
    assert 110 < middle.mean() < 145


def test_an_empty_window_is_ignored() -> None:
    stored_HW = gradient(top=4095)
    broken = dicom(stored_HW, WindowCenter=0, WindowWidth=0)
    assert np.array_equal(decode(broken).shown_HW, decode(dicom(stored_HW)).shown_HW)


def test_rescale_with_a_negative_slope_turns_dark_and_bright() -> None:
    stored_HW = gradient(top=4095)
    flipped = decode(dicom(stored_HW, RescaleSlope=-1, RescaleIntercept=4095)).shown_HW
    assert np.array_equal(flipped, decode(dicom(4095 - stored_HW)).shown_HW)


def test_one_hot_pixel_does_not_darken_the_picture() -> None:
    stored_HW = gradient(top=2000)
    expected = decode(dicom(stored_HW)).shown_HW.astype(int)
    stored_HW[0, 0] = 4095
    assert np.abs(decode(dicom(stored_HW)).shown_HW[1:].astype(int) - expected[1:]).max() <= 3


def test_brightness_and_contrast_of_the_file_do_not_reach_the_model() -> None:
    grey_HW = gradient().astype(np.uint8)
    dim = raster((grey_HW // 2 + 40).astype(np.uint8))
    difference = np.abs(to_pixels(dim, CONFIG).astype(int) - to_pixels(raster(grey_HW), CONFIG))
    assert difference.max() <= 5


def test_the_whole_picture_is_kept_and_the_shorter_side_padded_with_air() -> None:
    pixels_HW = scale(np.tile(gradient(32, 100).astype(np.uint8), (1, 1)), CONFIG)
    assert pixels_HW.shape == (64, 64)
    assert pixels_HW.dtype == np.uint8
    assert pixels_HW[:22].max() == 0
    assert pixels_HW[-22:].max() == 0
    assert pixels_HW[32, -1] > 200


def test_an_encoded_png_holds_exactly_the_shown_pixels_and_no_metadata() -> None:
    shown_HW = decode(dicom(gradient(top=4095))).shown_HW
    with Image.open(io.BytesIO(encode_png(shown_HW))) as image:
        assert np.array_equal(np.asarray(image), shown_HW)
        assert image.info == {}


def test_the_model_input_is_one_float_channel_around_zero() -> None:
    x_NCHW = to_model_input(np.array([[[0, 255]]], np.uint8), PixelConfig(side=64, mean=0.5, std=0.25))
    assert x_NCHW.shape == (1, 1, 1, 2)
    assert x_NCHW.dtype == np.float32
    assert x_NCHW.ravel().tolist() == pytest.approx([-2, 2])


def test_text_is_refused_with_its_length() -> None:
    with pytest.raises(UnknownTypeError, match="11 bytes"):
        to_pixels(b"hello there", CONFIG)


def test_an_empty_file_is_refused() -> None:
    assert reason(b"") == "empty"


def test_the_type_is_read_from_the_first_bytes() -> None:
    grey_HW = gradient().astype(np.uint8)
    blobs = (raster(grey_HW), raster(grey_HW, "JPEG"), dicom(gradient(top=4095)), raster(grey_HW, "BMP"))
    assert [sniff(blob) for blob in blobs] == ["png", "jpeg", "dicom", None]


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "DICOM"])
def test_a_truncated_file_is_refused_as_truncated(kind: str, share: float) -> None:
    noise_HW = np.random.default_rng(0).integers(0, 255, (80, 100), dtype=np.uint8)
    blob = dicom(noise_HW.astype(np.uint16)) if kind == "DICOM" else raster(noise_HW, kind)
    assert reason(blob[: int(len(blob) * share)]) == "truncated"


def test_a_damaged_file_is_refused_as_corrupt() -> None:
    blob = bytearray(raster(gradient().astype(np.uint8)))
    blob[60:120] = bytes(60)
    assert reason(bytes(blob)) == "corrupt"


def test_a_picture_without_contrast_is_blank() -> None:
    assert reason(raster(np.full((64, 64), 90, np.uint8))) == "blank"
    assert reason(dicom(np.full((64, 64), 900, np.uint16))) == "blank"


def test_a_thumbnail_is_too_small() -> None:
    assert reason(raster(gradient(31, 200).astype(np.uint8))) == "too_small"
    assert reason(dicom(gradient(16, 16, top=4095))) == "too_small"


def test_a_check_that_a_reviewer_has_overruled_lets_the_image_pass_and_no_other_does() -> None:
    tiny = raster(gradient(20, 20).astype(np.uint8))
    assert to_pixels(tiny, CONFIG, waived=("too_small",)).shape == (64, 64)
    blank = raster(np.full((80, 80), 7, np.uint8))
    assert np.ptp(to_pixels(blank, CONFIG, waived=("blank",))) == 0
    for blob, waived in ((tiny, "blank"), (blank, "too_small"), (tiny[:-60], "truncated")):
        with pytest.raises(BadImageError):
            to_pixels(blob, CONFIG, waived=(waived,))


def test_a_header_that_claims_gigapixels_is_refused_before_decoding() -> None:
    header = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 0, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(bytes(100))), (b"IEND", b"")]
    bomb = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in chunks
    )
    assert reason(bomb) == "too_large"
    assert reason(dicom(gradient(top=4095), Rows=60_000, Columns=60_000)) == "too_large"


def test_dicom_files_that_hold_no_single_picture_are_refused() -> None:
    stored_HW = gradient(top=4095)
    assert reason(dicom(stored_HW, PixelData=None)) == "no_pixels"
    assert reason(dicom(np.stack([stored_HW, stored_HW]), NumberOfFrames=2)) == "multi_frame"
    assert reason(dicom(stored_HW, syntax=DeflatedExplicitVRLittleEndian)) == "unsupported"


def test_a_message_never_holds_patient_data() -> None:
    with pytest.raises(BadImageError) as caught:
        decode(dicom(gradient(top=4095))[:-2000])
    assert "DOE" not in str(caught.value)


@pytest.mark.parametrize(
    "change", [{"side": 100}, {"std": 0.0}, {"low_percentile": 60.0, "high_percentile": 50.0}]
)
def test_impossible_settings_are_refused(change: dict[str, float]) -> None:
    with pytest.raises(ValueError):
        PixelConfig(**change)
