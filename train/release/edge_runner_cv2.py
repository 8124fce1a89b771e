"""The five functions of OpenCV that `data.imaging.strokes` calls, in numpy, for machines that have no OpenCV.

`train.release.edge_runner` puts this file into the edge runner, in OpenCV's place; tests hold the two together,
bit by bit. Only what is called there is here: 8-bit planes, the 9 x 9 square of ones, 8-connected pieces. Needs
numpy alone.
"""

from types import SimpleNamespace

import numpy as np

TOPHAT, BLACKHAT = 5, 6  # OpenCV's own numbers


def resize(image_HW: np.ndarray, size: tuple[int, int], interpolation: int) -> np.ndarray:
    """Shrink an 8-bit plane to `size` (width, height): each pixel is the mean of the area that it covers.

    Source: OpenCV, imgproc/src/resize.cpp: ResizeAreaFastVec where both sides halve exactly, else ResizeArea.
    """
    height, width = image_HW.shape
    if (width, height) == (2 * size[0], 2 * size[1]):
        wide_HW = image_HW.astype(np.uint16)
        four_HW = wide_HW[::2, ::2] + wide_HW[::2, 1::2] + wide_HW[1::2, ::2] + wide_HW[1::2, 1::2]
        return ((four_HW + 2) >> 2).astype(np.uint8)
    rows_HW = _averaged(image_HW.astype(np.float32), size[0])
    small_HW = np.ascontiguousarray(_averaged(np.ascontiguousarray(rows_HW.T), size[1]).T)
    return np.clip(np.rint(small_HW), 0, 255).astype(np.uint8)


def _averaged(values_HW: np.ndarray, cells: int) -> np.ndarray:
    """Average each row over `cells` equal stretches, float32; borders of a stretch count by their share."""
    length = values_HW.shape[1]
    scale = length / cells
    result = np.zeros((values_HW.shape[0], cells), np.float32)
    columns, sources, shares = _shares(length, cells, scale)
    for turn in range(len(columns)):
        result[:, columns[turn]] += values_HW[:, sources[turn]] * shares[turn]
    return result


def _shares(
    length: int, cells: int, scale: float
) -> tuple[list[np.ndarray], list[np.ndarray], list[np.ndarray]]:
    """Return how much each source column counts in which cell, in turns that have each cell at most once.

    Returns:
        for each turn its cells, their source columns and the shares of these.
    """
    turns: dict[int, list[tuple[int, int, float]]] = {}
    for cell in range(cells):
        first, last = cell * scale, (cell + 1) * scale
        width = min(scale, length - first)
        start, end = int(np.ceil(first)), min(int(np.floor(last)), length - 1)
        start = min(start, end)
        parts = [(start - 1, (start - first) / width)] if start - first > 1e-3 else []
        parts += [(source, 1.0 / width) for source in range(start, end)]
        if last - end > 1e-3:
            parts.append((end, min(min(last - end, 1.0), width) / width))
        for turn, (source, share) in enumerate(parts):
            turns.setdefault(turn, []).append((cell, source, share))
    columns, sources, shares = [], [], []
    for entries in turns.values():
        columns.append(np.array([cell for cell, _, _ in entries]))
        sources.append(np.array([source for _, source, _ in entries]))
        shares.append(np.array([share for _, _, share in entries], np.float32))
    return columns, sources, shares


def morphologyEx(image_HW: np.ndarray, operation: int, kernel: np.ndarray) -> np.ndarray:
    """Measure how far bright (top hat) or dark (black hat) pieces thinner than the kernel stand out."""
    reach = kernel.shape[0]
    if operation == TOPHAT:
        return image_HW - _running(_running(image_HW, reach, np.minimum), reach, np.maximum)
    return _running(_running(image_HW, reach, np.maximum), reach, np.minimum) - image_HW


def _running(image_HW: np.ndarray, reach: int, least: np.ufunc) -> np.ndarray:
    """Return the least (or greatest) of the square of `reach` pixels around each pixel; none lies beyond the edge."""
    for axis in (0, 1):
        margins = [(0, 0), (0, 0)]
        margins[axis] = (reach // 2, reach // 2)
        padded = np.pad(image_HW, margins, "edge")
        run, length = np.moveaxis(padded, axis, 0), 1
        while 2 * length <= reach:
            run, length = least(run[:-length], run[length:]), 2 * length
        if length < reach:
            run = least(run[: len(run) - (reach - length)], run[reach - length :])
        image_HW = np.moveaxis(run, 0, axis)
    return np.ascontiguousarray(image_HW)


def threshold(image_HW: np.ndarray, limit: float, value: int, kind: int) -> tuple[float, np.ndarray]:
    """Return `limit`, and a plane with `value` where a pixel is above it and 0 elsewhere."""
    return limit, (image_HW > limit).astype(np.uint8) * np.uint8(value)


def connectedComponents(mask_HW: np.ndarray, connectivity: int, ltype: int) -> tuple[int, np.ndarray]:
    """Return the number of pieces, the background among them, and the number of each pixel's piece.

    Pieces are numbered by their first pixel, row by row; OpenCV has the same pieces in an order of its own.
    """
    height, width = mask_HW.shape
    padded = np.zeros((height, width + 1), np.int8)
    padded[:, :width] = mask_HW != 0
    flat = padded.ravel()
    edges = np.diff(flat, prepend=0, append=0)
    starts, ends = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)  # runs of a row, end exclusive
    piece = _tied(starts, ends, width + 1)
    labels = np.zeros(flat.size + 1, np.int64)
    labels[starts] += piece + 1
    labels[ends] -= piece + 1
    labels_HW = np.cumsum(labels)[:-1].reshape(height, width + 1)[:, :width]
    return (int(piece.max()) + 2 if len(piece) else 1), labels_HW.astype(np.int32)


def _tied(starts: np.ndarray, ends: np.ndarray, stride: int) -> np.ndarray:
    """Return the number of each run's piece: runs of neighbouring rows that touch, corners included, are one piece."""
    above_first = np.searchsorted(ends, starts - stride, side="left")
    above_last = np.searchsorted(starts, ends - stride, side="right")
    touching = np.maximum(above_last - above_first, 0)
    run = np.repeat(np.arange(len(starts)), touching)
    above = np.arange(len(run)) + np.repeat(above_first - np.cumsum(touching) + touching, touching)
    smallest = np.arange(len(starts))
    while True:
        before = smallest.copy()
        np.minimum.at(smallest, run, before[above])
        np.minimum.at(smallest, above, before[run])
        # the run that stood for a piece so far learns which one stands for it now
        np.minimum.at(smallest, before, smallest.copy())
        smallest = smallest[smallest]
        if np.array_equal(smallest, before):
            return np.unique(smallest, return_inverse=True)[1]


cv2 = SimpleNamespace(
    CV_16U=2,
    CV_32S=4,
    INTER_AREA=3,
    MORPH_BLACKHAT=BLACKHAT,
    MORPH_TOPHAT=TOPHAT,
    THRESH_BINARY=0,
    connectedComponents=connectedComponents,
    morphologyEx=morphologyEx,
    resize=resize,
    threshold=threshold,
)
"""What `import cv2` gives elsewhere."""
