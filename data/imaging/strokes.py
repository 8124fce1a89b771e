"""Connected strokes of an X-ray that are as high as letters, at several scales: what `data.imaging.burned_in_text`
joins into lines.

Holds every call of OpenCV that text masking makes; `train.release.edge_runner_cv2` stands in for it on machines
without OpenCV.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np

STROKE = np.ones((9, 9), np.uint8)
"""A stroke is thinner than this; thicker ones are found on the image at half and quarter size."""
LEVELS = 3
LARGEST_LEVEL = 2560
"""Longer side, pixels, above which the image is halved first: no archive writes 10-pixel text on such a film."""
SMALLEST_LEVEL = 200
"""Longer side, pixels, below which no further halving is looked at."""
LEAST_CONTRAST = 32
"""Grey levels by which a stroke stands out from its surroundings."""
GLYPH_HEIGHTS = (5, 36)
"""Of a letter or of a word whose letters touch, pixels of its level."""
MOST_STROKES = 512
"""Pieces of one level and polarity that are looked at, the most contrasting ones; noise has thousands."""


def levels(shown_HW: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Yield the image, its half and its quarter, each with the number of halvings."""
    small_HW, first, level = np.ascontiguousarray(shown_HW), 0, 0
    while True:
        longer = max(small_HW.shape)
        if longer <= LARGEST_LEVEL:
            yield level, small_HW
        else:
            first = level + 1
        level += 1
        if level == first + LEVELS or longer <= 2 * SMALLEST_LEVEL:
            return
        size = (max(1, small_HW.shape[1] // 2), max(1, small_HW.shape[0] // 2))
        small_HW = cv2.resize(small_HW, size, interpolation=cv2.INTER_AREA)


@dataclass(frozen=True, kw_only=True)
class Strokes:
    """Connected pieces that stand out, one entry a piece."""

    left: np.ndarray
    top: np.ndarray
    width: np.ndarray
    height: np.ndarray
    area: np.ndarray
    sums: np.ndarray
    """Over the pixels of each piece: contrast, brightness, its square, steepness, and how many begin a stroke
    from the left and from above; float64, (6, N)."""


def strokes_of(small_HW: np.ndarray, operation: int) -> Strokes | None:
    """Return the pieces as high as letters; None when there is none."""
    contrast_HW = cv2.morphologyEx(small_HW, operation, STROKE)
    mask_HW = cv2.threshold(contrast_HW, LEAST_CONTRAST - 1, 1, cv2.THRESH_BINARY)[1]
    where = np.flatnonzero(mask_HW.view(bool))
    piece, count = _pieces(mask_HW, where)
    left, right, top, bottom, area = _extents(where, piece, count, small_HW.shape[1])
    width, height = right - left + 1, bottom - top + 1
    fits = (height >= GLYPH_HEIGHTS[0]) & (height <= GLYPH_HEIGHTS[1]) | (
        (width >= GLYPH_HEIGHTS[0]) & (width <= GLYPH_HEIGHTS[1])
    )
    chosen = np.flatnonzero(fits & (area >= 6) & (10 * area >= width * height))
    if len(chosen) == 0:
        return None
    sums = _sums(small_HW, contrast_HW, mask_HW, where, piece, count)
    if len(chosen) > MOST_STROKES:
        strongest = np.argsort(-sums[0, chosen] / area[chosen], kind="stable")[:MOST_STROKES]
        chosen = np.sort(chosen[strongest])
    return Strokes(
        left=left[chosen],
        top=top[chosen],
        width=width[chosen],
        height=height[chosen],
        area=area[chosen],
        sums=sums[:, chosen],
    )


def _pieces(mask_HW: np.ndarray, where: np.ndarray) -> tuple[np.ndarray, int]:
    """Return the number of each stroke pixel's connected piece, from 0, and how many pieces there are."""
    few = len(where) < 1 << 16  # 16-bit labels take a third of the time
    kind = cv2.CV_16U if few else cv2.CV_32S
    count, labels_HW = cv2.connectedComponents(mask_HW, connectivity=8, ltype=kind)
    return labels_HW.ravel()[where].astype(np.int64) - 1, count - 1


def _extents(where: np.ndarray, piece: np.ndarray, count: int, width: int) -> list[np.ndarray]:
    """Return first and last column, first and last row, and area of each piece."""
    row, column = np.divmod(where, width)
    ends = []
    for values, ufunc, start in (
        (column, np.minimum, width),
        (column, np.maximum, -1),
        (row, np.minimum, np.iinfo(np.int64).max),
        (row, np.maximum, -1),
    ):
        end = np.full(count, start)
        ufunc.at(end, piece, values)
        ends.append(end)
    return [*ends, np.bincount(piece, minlength=count)]


def _sums(
    small_HW: np.ndarray,
    contrast_HW: np.ndarray,
    mask_HW: np.ndarray,
    where: np.ndarray,
    piece: np.ndarray,
    count: int,
) -> np.ndarray:
    """See `Strokes.sums`; `where` are the stroke pixels, `piece` the piece of each."""
    width = small_HW.shape[1]
    flat, inside = small_HW.ravel(), mask_HW.ravel()
    before, after = np.maximum(where - 1, 0), np.minimum(where + 1, flat.size - 1)
    above, below = np.maximum(where - width, 0), np.minimum(where + width, flat.size - 1)
    across = np.abs(flat[after].astype(np.int16) - flat[before])
    along = np.abs(flat[below].astype(np.int16) - flat[above])
    steep = np.maximum(across, along)
    bright = flat[where].astype(np.float64)
    weights = (
        contrast_HW.ravel()[where],
        bright,
        bright * bright,
        steep,
        inside[before] == 0,
        inside[above] == 0,
    )
    return np.stack([np.bincount(piece, weight, minlength=count) for weight in weights])
