"""Find and mask text that is burned into the pixels: names, dates, numbers in any corner of an X-ray.

`data.imaging.preprocess.decode` masks what is shown, before anything is scaled, stored or answered;
`data.privacy.export` masks stored pixels with the same boxes. No words are read; strokes that stand out from both
sides are joined into lines, and a line is text when its strokes are as many, as sharp and as level as letters are.
How much it finds, and what it hides by mistake, is measured in docs/experiments.md. Knows no file format and no
labels.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from data.imaging.strokes import GLYPH_HEIGHTS, Strokes, levels, strokes_of

TALLEST = 14
"""Letters are at most this part of the longer side; what is taller is a side marker, or fingers side by side."""


@dataclass(frozen=True)
class Box:
    """A rectangle of pixels; ends are exclusive."""

    top: int
    left: int
    bottom: int
    right: int


# Weights of what speaks for text in a line of strokes, fitted as docs/experiments.md describes; see `_evidence`.
WEIGHTS = np.array([2.48, 0.96, 6.07, 1.63, 0.74, -0.72, -11.55, -2.61, 2.86, 1.07])
BIAS_LEVEL, BIAS_UPRIGHT = -33.99, -34.68
SURE = 0.5
"""Evidence from which a line is text on its own."""
LIKELY = -1.0
"""Evidence from which a line is text beside one that is sure."""


def mask_text(shown_HW: np.ndarray) -> np.ndarray:
    """Fill each box of text with the brightness around it; returns the image itself when there is none."""
    boxes = find_text(shown_HW)
    return fill(shown_HW, boxes) if boxes else shown_HW


def fill(pixels: np.ndarray, boxes: list[Box]) -> np.ndarray:
    """Return a copy in which each box has the median of the frame of pixels around it, channel by channel.

    Not black or white: a patch that stands out would tell a model which archive an image comes from.
    """
    filled = pixels.copy()
    for box in boxes:
        outer = pixels[max(0, box.top - 2) : box.bottom + 2, max(0, box.left - 2) : box.right + 2]
        frame = np.ones(outer.shape[:2], bool)
        top, left = min(2, box.top), min(2, box.left)
        frame[top : top + box.bottom - box.top, left : left + box.right - box.left] = False
        around = outer[frame] if frame.any() else outer.reshape(-1, *outer.shape[2:])
        filled[box.top : box.bottom, box.left : box.right] = np.sort(around, axis=0)[len(around) // 2]
    return filled


def find_text(shown_HW: np.ndarray) -> list[Box]:
    """Return the boxes of burned-in text, from the top down; a pure function of the pixels.

    Args:
        shown_HW: uint8, full size.
    """
    sure: list[np.ndarray] = []
    likely: list[np.ndarray] = []
    tallest = max(GLYPH_HEIGHTS[1], max(shown_HW.shape) // TALLEST)
    for level, small_HW in levels(shown_HW):
        for lines, evidence in _lines_of(small_HW):
            scaled = lines << level
            low = np.minimum(scaled[:, 2] - scaled[:, 0], scaled[:, 3] - scaled[:, 1]) <= tallest
            scaled, evidence = scaled[low], evidence[low]
            sure += list(scaled[evidence >= SURE])
            likely += list(scaled[(evidence >= LIKELY) & (evidence < SURE)])
    return _boxes(sure, likely, shown_HW.shape)


def _lines_of(small_HW: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Join the strokes of one level into lines: bright and dark, level and upright, each with its evidence."""
    lines = []
    for operation in (cv2.MORPH_TOPHAT, cv2.MORPH_BLACKHAT):
        strokes = strokes_of(small_HW, operation)
        if strokes is not None:
            for upright in (False, True):
                boxes, features = _lines(strokes, upright)
                bias = BIAS_UPRIGHT if upright else BIAS_LEVEL
                lines.append((boxes, features @ WEIGHTS + bias))
    return lines


def _lines(strokes: Strokes, upright: bool) -> tuple[np.ndarray, np.ndarray]:
    """Join strokes that stand side by side.

    Args:
        upright: join them from top to bottom, for text that is turned by 90 degrees.
    Returns:
        boxes: int, (N, 4): top, left, bottom, right.
        features: float64, (N, len(WEIGHTS)), see `_evidence`.
    """
    start, width, top, height = strokes.left, strokes.width, strokes.top, strokes.height
    if upright:
        start, width, top, height = top, height, start, width
    fits = (height >= GLYPH_HEIGHTS[0]) & (height <= GLYPH_HEIGHTS[1]) & (width <= 16 * height)
    chosen = np.flatnonzero(fits)
    start, width, top, height = (values[chosen].astype(np.float64) for values in (start, width, top, height))
    if len(chosen) == 0:
        return np.zeros((0, 4), np.int64), np.zeros((0, len(WEIGHTS)))
    line = _joined(start, width, top, height)
    count = int(line.max()) + 1

    def total(values: np.ndarray) -> np.ndarray:
        return np.bincount(line, values, minlength=count)

    def extreme(values: np.ndarray, least: bool) -> np.ndarray:
        ends = np.full(count, np.inf if least else -np.inf)
        (np.minimum if least else np.maximum).at(ends, line, values)
        return ends

    first, last = extreme(start, True), extreme(start + width, False)
    head, foot = extreme(top, True), extreme(top + height, False)
    sums = np.stack([total(values[chosen]) for values in strokes.sums])
    features = _evidence(
        pieces=total(np.ones_like(start)),
        heights=np.stack([total(height), total(height**2)]),
        feet=np.stack([total(top + height), total((top + height) ** 2)]),
        heads=np.stack([total(top), total(top**2)]),
        length=last - first,
        area=total(strokes.area[chosen]),
        sums=sums,
        begins=sums[5 if upright else 4],
    )
    ends = (first, head, last, foot) if upright else (head, first, foot, last)
    boxes = np.stack(ends, axis=1).astype(np.int64)
    long_enough = features[:, 1] >= np.log(2.0)
    return boxes[long_enough], features[long_enough]


def _joined(start: np.ndarray, width: np.ndarray, top: np.ndarray, height: np.ndarray) -> np.ndarray:
    """Return the number of each stroke's line: neighbours are as high, as level, and less than a letter apart."""
    end, foot = start + width, top + height
    order = np.argsort(start, kind="stable")
    reach = np.searchsorted(start[order], end[order] + 1.2 / 0.45 * height[order], side="right")
    partners = np.maximum(reach - np.arange(len(order)) - 1, 0)
    left = np.repeat(np.arange(len(order)), partners)
    right = left + 1 + np.arange(len(left)) - np.repeat(np.cumsum(partners) - partners, partners)
    left, right = order[left], order[right]
    higher, lower = np.maximum(height[left], height[right]), np.minimum(height[left], height[right])
    gap = start[right] - np.minimum(end[left], end[right])
    beside = np.minimum(foot[left], foot[right]) - np.maximum(top[left], top[right])
    step = np.minimum(np.abs(top[left] - top[right]), np.abs(foot[left] - foot[right]))
    near = (gap < 1.2 * higher) & (gap > -0.5 * higher) & (lower > 0.45 * higher)
    near &= (beside > 0.6 * lower) & (step <= np.maximum(1.5, 0.18 * higher))
    return _numbered(len(start), left[near], right[near])


def _numbered(count: int, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Count off the sets that the pairs tie together: the smallest member's number spreads until none changes."""
    smallest = np.arange(count)
    while True:
        before = smallest.copy()
        np.minimum.at(smallest, left, before[right])
        np.minimum.at(smallest, right, before[left])
        smallest = smallest[smallest]
        if np.array_equal(smallest, before):
            return np.unique(smallest, return_inverse=True)[1]


def _evidence(
    *,
    pieces: np.ndarray,
    heights: np.ndarray,
    feet: np.ndarray,
    heads: np.ndarray,
    length: np.ndarray,
    area: np.ndarray,
    sums: np.ndarray,
    begins: np.ndarray,
) -> np.ndarray:
    """Compute what tells letters from ribs, wires and noise, in the order of `WEIGHTS`; one row a line."""
    height = heights[0] / pieces
    contrast = sums[0] / area

    def spread(moments: np.ndarray, number: np.ndarray) -> np.ndarray:
        mean = moments[0] / number
        return np.asarray(np.sqrt(np.maximum(moments[1] / number - mean**2, 0)))

    return np.stack(
        [
            np.log(pieces),
            np.log(length / height),
            np.log(contrast),
            np.minimum(begins / length, 3),  # strokes met on the way through a height of one letter
            sums[3] / sums[0],  # steepness of the edges, in contrasts
            spread(heights, pieces) / height,
            np.minimum(spread(feet, pieces), spread(heads, pieces)) / height,  # level at foot or head
            spread(sums[1:3], area) / contrast,  # one ink: brightness varies little
            area / (length * height),
            np.log(height),
        ],
        axis=1,
    )


def _boxes(sure: list[np.ndarray], likely: list[np.ndarray], shape: tuple[int, ...]) -> list[Box]:
    """Grow each sure line by its margin, take in likely ones beside it, and cut at the image's edge."""
    taken = [_grown(line) for line in sure]
    taken += [_grown(line) for line in likely if any(_beside(line, other) for other in sure)]
    cut = {
        Box(max(0, top), max(0, left), min(shape[0], bottom), min(shape[1], right))
        for top, left, bottom, right in taken
    }
    return sorted(cut, key=lambda box: (box.top, box.left, box.bottom, box.right))


def _beside(line: np.ndarray, other: np.ndarray) -> bool:
    """Tell whether a likely line is a further word or row of a sure one: as high, and at most two letters away."""
    low, high = sorted(min(box[2] - box[0], box[3] - box[1]) for box in (line, other))
    apart = np.maximum(line[:2] - other[2:], other[:2] - line[2:]).max()
    return bool(2 * low >= high and apart <= 2 * low)


def _grown(line: np.ndarray) -> tuple[int, int, int, int]:
    """Grow a line by a quarter of a letter on every side, for accents, commas and the blur of JPEG."""
    top, left, bottom, right = (int(end) for end in line)
    margin = 2 + min(bottom - top, right - left) // 4
    return top - margin, left - margin, bottom + margin, right + margin
