"""Map grey values of any depth to the 256 that are shown, by one table over the stored range.

`data.imaging.preprocess` uses it for PNG, `data.imaging.dicom` for DICOM. Every step from stored value to brightness is
pointwise, so at most 65,536 values are computed, whatever the size of the image. Knows no file format.
"""

import numpy as np

from data.imaging.errors import BadImageError
from data.imaging.lut import count, offsets

RAMP_PERCENTILES = (0.1, 99.9)
"""Of pixels deeper than 8 bits without a window: the range that is shown; the rest is hot or dead pixels."""


def ramp_of(stored_HW: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the range of an image.

    Returns:
        index_HW: uint16, where in the ramp each pixel lies.
        ramp: int64, every value from the lowest stored to the highest, at most 65,536.
    Raises:
        BadImageError: more than 16 bits apart, or no plane of grey values.
    """
    if stored_HW.ndim != 2:
        raise BadImageError("unsupported", "the image is no plane of grey values")
    lowest, highest = int(stored_HW.min()), int(stored_HW.max())
    if highest - lowest >= 1 << 16:
        raise BadImageError("unsupported", "the image is deeper than 16 bits")
    return offsets(stored_HW, lowest), np.arange(lowest, highest + 1)


def ramp_limits(
    index_HW: np.ndarray, values: np.ndarray, ignored: np.ndarray | None = None
) -> tuple[float, float]:
    """Return the brightness between which all pixels lie but the few that `RAMP_PERCENTILES` leaves out.

    Args:
        values: brightness of each entry of the ramp, in any order.
        ignored: bool, entries of the ramp that are no picture (padding) and do not count.
    """
    counts = count(index_HW, len(values))
    if ignored is not None and counts[~ignored].any():
        counts[ignored] = 0
    order = np.argsort(values, kind="stable")
    low, high = values[order][list(percentiles(counts[order], *RAMP_PERCENTILES))]
    return float(low), float(high)


def stretch(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Map low..high to 0..255, rounded and clipped; all 0 when there is no range."""
    span = max(float(high) - float(low), 1e-9)
    return np.clip((values.astype(np.float64) - low) * (255 / span) + 0.5, 0, 255).astype(np.uint8)


def percentiles(counts: np.ndarray, low: float, high: float) -> tuple[int, int]:
    """Return the bins in which the two percentiles of a histogram lie."""
    below = np.cumsum(counts)
    positions = np.searchsorted(below, [below[-1] * low / 100, below[-1] * high / 100], side="left")
    return int(positions[0]), int(min(positions[1], len(counts) - 1))
