"""Stored values of a DICOM file become brightness by its look-up tables, windows and padding."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian as Explicit
from pydicom.uid import ImplicitVRLittleEndian as Implicit

from data.imaging.dicom import decode_dicom
from data.imaging.dicom_lut import window
from tests.data.imaging.dicom_files import by_percentile, dicom, ramp, wave


@pytest.mark.parametrize(("slope", "intercept"), [(1, -1024), (-1, 4095), (0.25, 7.5)])
def test_rescale_orders_the_brightness(slope: float, intercept: float) -> None:
    blob = dicom(wave(), RescaleSlope=slope, RescaleIntercept=intercept)
    assert np.array_equal(decode_dicom(blob), by_percentile(wave().astype(float) * slope + intercept))


def linear(x: float, center: float, width: float) -> float:
    if x <= center - 0.5 - (width - 1) / 2:
        return 0.0
    if x > center - 0.5 + (width - 1) / 2:
        return 1.0
    return (x - (center - 0.5)) / (width - 1) + 0.5


def exact(x: float, center: float, width: float) -> float:
    if x <= center - width / 2:
        return 0.0
    return 1.0 if x > center + width / 2 else (x - center) / width + 0.5


def sigmoid(x: float, center: float, width: float) -> float:
    return 1 / (1 + math.exp(-4 * (x - center) / width))


@pytest.mark.parametrize(
    ("function", "formula"),
    [(None, linear), ("LINEAR", linear), ("LINEAR_EXACT", exact), ("SIGMOID", sigmoid)],
)
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_each_window_function_follows_the_standards_formula(
    function: str | None, formula: Callable[[float, float, float], float], photometric: str
) -> None:
    center, width = 1500.0, 900.0
    fields = {} if function is None else {"VOILUTFunction": function}
    blob = dicom(
        wave(), PhotometricInterpretation=photometric, WindowCenter=center, WindowWidth=width, **fields
    )
    values = np.vectorize(formula)(wave().astype(float), center, width)
    if photometric == "MONOCHROME1":
        values = -values
    assert np.array_equal(decode_dicom(blob), ramp(values, values.min(), values.max()))


def test_a_window_of_one_is_a_threshold() -> None:
    assert window(np.array([99.0, 100.0]), 100.0, 1.0, "LINEAR").tolist() == [0.0, 1.0]


def test_of_several_windows_the_first_that_shows_anything_counts() -> None:
    one = decode_dicom(dicom(wave(), WindowCenter=1500, WindowWidth=900))
    for centers, widths in (([1500, 300], [900, 10]), ([90_000, 1500], [10, 900]), ([7, 1500], [0, 900])):
        assert np.array_equal(decode_dicom(dicom(wave(), WindowCenter=centers, WindowWidth=widths)), one)


def test_a_window_that_hides_everything_is_ignored() -> None:
    blob = dicom(wave(), WindowCenter=90_000, WindowWidth=10)
    assert np.array_equal(decode_dicom(blob), by_percentile(wave()))


def lut(entries: list[int], first: int, bits: int, vr: str = "US") -> Dataset:
    item = Dataset()
    item.add_new(0x00283002, "US", [len(entries) % 65536, first % 65536, bits])
    packed = np.array(entries, np.uint8 if vr == "OW8" else "<u2").tobytes()
    item.add_new(0x00283006, vr[:2], entries if vr == "US" else packed)
    return item


@pytest.mark.parametrize("vr", ["US", "OW", "OW8"])
@pytest.mark.parametrize("syntax", [Explicit, Implicit])
def test_a_voi_lut_maps_each_value_and_its_ends_reach_beyond(vr: str, syntax: str) -> None:
    curve = [round(255 * math.sqrt(n / 255)) for n in range(256)]
    blob = dicom(wave(top=1023), syntax=syntax, VOILUTSequence=[lut(curve, 200, 8, vr)])
    values = np.vectorize(lambda v: curve[min(max(v - 200, 0), 255)])(wave(top=1023).astype(int))
    assert np.array_equal(decode_dicom(blob), ramp(values, values.min(), values.max()))


def test_a_voi_lut_takes_what_a_rescale_made_negative() -> None:
    curve = [n * n for n in range(200)]
    blob = dicom(wave(top=255), RescaleSlope=1, RescaleIntercept=-100, VOILUTSequence=[lut(curve, -80, 16)])
    values = np.vectorize(lambda v: curve[min(max(v - 100 + 80, 0), 199)])(wave(top=255).astype(int))
    assert np.array_equal(decode_dicom(blob), ramp(values, values.min(), values.max()))


def test_a_modality_lut_comes_before_the_window_and_may_have_65536_entries() -> None:
    curve = [65535 - n for n in range(65536)]
    blob = dicom(
        wave(),
        ModalityLUTSequence=[lut(curve, 0, 16, "OW")],
        WindowCenter=63_000,
        WindowWidth=2000,
        RescaleSlope=9,
    )
    values = np.vectorize(linear)(65535.0 - wave(), 63_000, 2000)
    assert np.array_equal(decode_dicom(blob), ramp(values, values.min(), values.max()))


def test_padding_is_shown_as_air_and_does_not_count() -> None:
    stored = wave(top=1000) + np.uint16(500)
    inner = stored[:, 8:].copy()
    stored[:, :8] = 4000
    shown_HW = decode_dicom(dicom(stored, PixelPaddingValue=4000))
    assert shown_HW[:, :8].max() == 0
    assert np.array_equal(shown_HW[:, 8:], by_percentile(inner))
