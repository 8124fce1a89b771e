"""Map the stored values of a DICOM file to brightness: modality LUT or rescale, VOI LUT or window, padding.

`data.imaging.dicom` applies them to every value that an image can hold. Source: PS3.3 C.7.5.1.1.2, C.11.1, C.11.2.
"""

import numpy as np
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.uid import (
    ExplicitVRBigEndian,
)


def modality_values(ramp: np.ndarray, header: Dataset) -> np.ndarray:
    """Map stored values to what the device measured: float64. Source: PS3.3 C.11.1."""
    if header.get("ModalityLUTSequence"):
        return _through_lut(ramp.astype(np.float64), header.ModalityLUTSequence[0], header)
    slope, intercept = _number(header.get("RescaleSlope")), _number(header.get("RescaleIntercept"))
    return ramp * (slope if slope else 1.0) + (intercept or 0.0)


def voi_values(values: np.ndarray, header: Dataset) -> np.ndarray | None:
    """Map measured values to brightness through the VOI LUT, or the first window that shows anything.

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
    """Map values to brightness 0..1; an unknown function counts as LINEAR.

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


def padding_of(ramp: np.ndarray, header: Dataset) -> np.ndarray | None:
    """Return, as bool over the ramp, what the device filled in beside the picture. Source: PS3.3 C.7.5.1.1.2."""
    value = _number(header.get("PixelPaddingValue"))
    if value is None:
        return None
    limit = _number(header.get("PixelPaddingRangeLimit"))
    ends = sorted((value, value if limit is None else limit))
    if header.get("PixelRepresentation") == 1:
        ends = sorted(end - 65536 if end >= 32768 else end for end in ends)
    inside = (ramp >= ends[0]) & (ramp <= ends[1])
    return inside if inside.any() and not inside.all() else None


def _numbers(value: object) -> list[float]:
    numbers = [_number(item) for item in (value if isinstance(value, MultiValue) else [value])]
    return [item for item in numbers if item is not None]


def _number(value: object) -> float | None:
    """Parse a finite number, None for an empty or broken one."""
    try:
        number = float(str(value))
    except ValueError:
        return None
    return number if np.isfinite(number) else None
