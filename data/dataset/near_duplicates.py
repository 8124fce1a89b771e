"""Find pictures that are copies of one another: resized, recompressed, brightened, cropped a little, framed, marked.

Workers of `etl` make one `fingerprint` an image, its driver asks `near_duplicates` for the pairs. Chest films
all look alike, so what is compared is not the picture but its local detail (each point against the mean of its
surroundings), where two patients share little. Three steps, each for what the one before lets through:
bands of bits that are equal, the Hamming distance of all bits, the correlation of the detail under a list of
small crops. Everything is integer arithmetic (float32 products stay below 2**24), so that no machine, library or number
of threads can give another result; that is why it is written here, and not with scipy or an image-hash library.
Where the constants come from: docs/experiments.md. Knows neither Ray nor S3.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

NEAR_VERSION = "1"
"""Raised whenever the same pixels could give other pairs; part of a dataset's version."""

SIDE = 32
"""Of a fingerprint, pixels."""
FRAME_RANGE = 10
"""Grey levels within which an outermost row or column is a frame or padding, and is cut off."""
SURROUNDINGS = 5
"""Side of the square whose mean a point is compared with; at 9, look-alikes of other patients come near copies."""
FINE = 16
"""Steps of a pixel in which a crop is interpolated."""
COARSE = SIDE // 2
BITS = COARSE**2
BAND_BITS = 20
BANDS = BITS // BAND_BITS
LONGEST_MATCH = 1024
"""Images that one band is compared with: what fills more is a row of copies, tied through the first ones anyway."""
BITS_APART = 42
"""Of 256: unrelated pictures are 100 apart; 38 keeps 88 to 100 % of the copies, look-alikes begin at 19."""
WORTH_A_LOOK_PERCENT = 70
"""Correlation of the detail at one crop from which all crops are tried."""
ALIKE_PERCENT = 84
"""Correlation of the detail at the best crop from which two pictures are one."""
LEVELS = 127
CHUNK = 1 << 20
PAIRS = 2048

Box = tuple[float, float, float, float]
"""Cut off at the left, top, right and bottom: pixels of the fingerprint."""


def _zoom(by: float) -> Box:
    return by, by, by, by


def _corners(by: float) -> tuple[Box, ...]:
    return (by, by, 0, 0), (by, 0, 0, by), (0, by, by, 0), (0, 0, by, by)


WHOLE: Box = _zoom(0)
SEARCHED: tuple[Box, ...] = (WHOLE, _zoom(1), _zoom(1.5), _zoom(2.6), *_corners(1.3))
"""Crops under which candidates are looked for."""
CROPS: tuple[Box, ...] = (
    *(_zoom(by) for by in (0, 0.5, 1, 1.5, 2, 2.6)),
    *(box for by in (0.7, 1.3, 2) for box in _corners(by)),
    *(box for by in (0.7, 1.3) for box in ((by, 0, by, 0), (0, by, 0, by))),
)
"""Crops under which two candidates are compared, one of them cut and the other whole."""


def fingerprint(pixels_HW: np.ndarray) -> bytes:
    """Squeeze the picture without frame and padding into a square, so that its proportions do not matter.

    Args:
        pixels_HW: uint8, the canonical pixels.
    Returns:
        1,024 bytes: uint8, row by row.
    """
    return Image.fromarray(_unframed(pixels_HW)).resize((SIDE, SIDE), Image.Resampling.BOX).tobytes()


def near_duplicates(fingerprints: Sequence[bytes], groups: Sequence[str]) -> list[tuple[int, int]]:
    """Return the pairs of copies, as sorted positions, without pairs that share a group, which are tied already.

    The pairs found do not depend on the order of the images but where more than `LONGEST_MATCH` are all alike.
    """
    if len(fingerprints) < 2:
        return []
    thumbs_NHW = np.frombuffer(b"".join(fingerprints), np.uint8).reshape(-1, SIDE, SIDE)
    group_N = np.unique(np.asarray(groups), return_inverse=True)[1]
    pairs_P2 = _candidates(thumbs_NHW, group_N)
    alike = [_alike(thumbs_NHW, pairs_P2[start : start + PAIRS]) for start in range(0, len(pairs_P2), PAIRS)]
    copies = pairs_P2[np.concatenate(alike)] if alike else pairs_P2
    return [(int(first), int(second)) for first, second in copies]


def _unframed(pixels_HW: np.ndarray) -> np.ndarray:
    """Cut off the rows and columns at the edges in which all pixels are about equal; a flat picture stays."""
    top, bottom, left, right = 0, pixels_HW.shape[0], 0, pixels_HW.shape[1]
    while True:
        inside = pixels_HW[top:bottom, left:right]
        rows = np.flatnonzero(np.ptp(inside, axis=1) > FRAME_RANGE)
        columns = np.flatnonzero(np.ptp(inside, axis=0) > FRAME_RANGE)
        if not len(rows) or not len(columns):
            return pixels_HW
        if inside.shape == (rows[-1] - rows[0] + 1, columns[-1] - columns[0] + 1):
            return inside
        top, bottom = top + int(rows[0]), top + int(rows[-1]) + 1
        left, right = left + int(columns[0]), left + int(columns[-1]) + 1


def _detail(thumbs_NHW: np.ndarray, box: Box) -> np.ndarray:
    """Compare each point of the cut picture with its surroundings: float32 that holds integers below 2**21."""
    down, across = (_stretch(*ends).astype(np.float32) for ends in ((box[1], box[3]), (box[0], box[2])))
    cut_NHW = down @ thumbs_NHW.astype(np.float32) @ across.T
    mean = _surroundings().astype(np.float32)
    return SURROUNDINGS**2 * cut_NHW - mean @ cut_NHW @ mean.T


def _stretch(before: float, after: float) -> np.ndarray:
    """Return the matrix that cuts the ends off `SIDE` points and spreads the rest over them, in `FINE`ths."""
    at = np.clip(before + (np.arange(SIDE) + 0.5) * (SIDE - before - after) / SIDE - 0.5, 0, SIDE - 1)
    fine = np.floor(at * FINE + 0.5).astype(int)
    low, share = fine // FINE, fine % FINE
    matrix = np.zeros((SIDE, SIDE), int)
    np.add.at(matrix, (np.arange(SIDE), low), FINE - share)
    np.add.at(matrix, (np.arange(SIDE), np.minimum(low + 1, SIDE - 1)), share)
    return matrix


def _surroundings() -> np.ndarray:
    """Return the matrix that adds up the `SURROUNDINGS` points around each one, mirrored at the ends."""
    matrix = np.zeros((SIDE, SIDE), int)
    reach = SURROUNDINGS // 2
    for step in range(-reach, reach + 1):
        at = np.arange(SIDE) + step
        at = np.where(at < 0, -1 - at, np.where(at >= SIDE, 2 * SIDE - 1 - at, at))
        np.add.at(matrix, (np.arange(SIDE), at), 1)
    return matrix


def _levels(detail_NHW: np.ndarray) -> np.ndarray:
    """Divide detail by its own mean and clip it there: a marker counts no more than any other edge.

    Returns:
        int8, (N, SIDE**2), -127..127.
    """
    whole = detail_NHW.reshape(len(detail_NHW), -1).astype(np.int32)  # 1,024 sums and 127 times fit too
    mean = np.maximum(np.abs(whole).sum(1, keepdims=True) // SIDE**2, 1)
    return (np.clip(whole, -mean, mean) * LEVELS // mean).astype(np.int8)


def _bits(detail_NHW: np.ndarray) -> np.ndarray:
    """Return for each 2 x 2 points whether they are brighter than their surroundings: bool, (N, BITS), scattered."""
    sums = detail_NHW.reshape(-1, COARSE, 2, COARSE, 2).sum((2, 4)).reshape(-1, BITS)
    return (sums > 0)[:, np.random.default_rng(5).permutation(BITS)]


def _candidates(thumbs_NHW: np.ndarray, group_N: np.ndarray) -> np.ndarray:
    """Return pairs of different groups that may be copies: int64, (P, 2), each once, the smaller first."""
    number = len(thumbs_NHW)
    whole = _Whole.of(thumbs_NHW)
    pairs = [np.empty(0, np.int64)]
    for box in SEARCHED:
        for first in range(0, number, PAIRS):
            for first_N, second_N in _like_cut(whole, thumbs_NHW, first, box, group_N):
                pairs.append(np.minimum(first_N, second_N) * number + np.maximum(first_N, second_N))
    return np.stack(np.divmod(np.unique(np.concatenate(pairs)), number), axis=1)


@dataclass(frozen=True, kw_only=True)
class _Whole:
    """All pictures, uncut, in the forms in which they are looked up; 1.2 kB each."""

    levels: np.ndarray
    """int8, (N, SIDE**2)."""
    textured: np.ndarray
    """bool, (N,)."""
    words: np.ndarray
    """The bits as uint64, (N, BITS // 64)."""
    bands: list[np.ndarray]
    """int32, (N,) each."""
    orders: list[np.ndarray]
    """Positions by the value of each band: int32, (N,) each."""

    @classmethod
    def of(cls, thumbs_NHW: np.ndarray) -> "_Whole":
        levels, bits = _described(thumbs_NHW, WHOLE)
        bands = _bands(bits)
        return cls(
            levels=levels,
            textured=np.abs(levels).max(1) > 0,
            words=_words(bits),
            bands=bands,
            orders=[np.argsort(band, kind="stable").astype(np.int32) for band in bands],
        )


def _like_cut(
    whole: _Whole, thumbs_NHW: np.ndarray, first: int, box: Box, group_N: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield positions of whole pictures, and of cut ones from `first` on, at most `PAIRS`, that look alike."""
    levels, bits = _described(thumbs_NHW[first : first + PAIRS], box)
    words = _words(bits)
    for band, cut_band, order in zip(whole.bands, _bands(bits), whole.orders, strict=True):
        for uncut, cut in _matches(band, order, cut_band):
            other = first + cut
            near = (group_N[uncut] != group_N[other]) & whole.textured[uncut] & whole.textured[other]
            near &= (uncut < other) | (box is not WHOLE)
            uncut, cut = uncut[near], cut[near]
            near = np.bitwise_count(whole.words[uncut] ^ words[cut]).sum(1) <= BITS_APART
            uncut, cut = uncut[near], cut[near]
            for start in range(0, len(uncut), PAIRS):
                uncut_part, cut_part = uncut[start : start + PAIRS], cut[start : start + PAIRS]
                near = _correlated(whole.levels[uncut_part], levels[cut_part], WORTH_A_LOOK_PERCENT)
                yield uncut_part[near].astype(np.int64), cut_part[near] + first


def _described(thumbs_NHW: np.ndarray, box: Box) -> tuple[np.ndarray, np.ndarray]:
    """Compute levels and bits of cut pictures, some thousand at a time, to stay small in memory."""
    levels = np.empty((len(thumbs_NHW), SIDE**2), np.int8)
    bits = np.empty((len(thumbs_NHW), BITS), bool)
    for start in range(0, len(thumbs_NHW), PAIRS):
        batch = slice(start, start + PAIRS)
        detail_NHW = _detail(thumbs_NHW[batch], box)
        levels[batch], bits[batch] = _levels(detail_NHW), _bits(detail_NHW)
    return levels, bits


def _bands(bits: np.ndarray) -> list[np.ndarray]:
    """Pack the bits into `BANDS` numbers of `BAND_BITS` each; what is left over is in no band."""
    weights = 1 << np.arange(BAND_BITS, dtype=np.int32)
    return [bits[:, n * BAND_BITS : (n + 1) * BAND_BITS] @ weights for n in range(BANDS)]


def _words(bits: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(np.packbits(bits, axis=1)).view(np.uint64)


def _matches(
    band: np.ndarray, order: np.ndarray, cut_band: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield positions whose band equals the cut band of others, some million pairs at a time."""
    ordered = band[order]
    low = np.searchsorted(ordered, cut_band, "left")
    lengths = np.minimum(np.searchsorted(ordered, cut_band, "right") - low, LONGEST_MATCH)
    ends = np.cumsum(lengths)
    start = 0
    while start < len(cut_band):
        before = int(ends[start - 1]) if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, before + CHUNK, "right")))
        counts = lengths[start:stop]
        other = np.repeat(np.arange(start, stop), counts)
        inside = np.arange(len(other)) - np.repeat(ends[start:stop] - counts - before, counts)
        yield order[np.repeat(low[start:stop], counts) + inside], other
        start = stop


def _alike(thumbs_NHW: np.ndarray, pairs_P2: np.ndarray) -> np.ndarray:
    """Return which of the pairs are one picture under any of the crops of either: bool, (P,)."""
    images, places = np.unique(pairs_P2, return_inverse=True)
    first, second = places.reshape(-1, 2).T
    thumbs = thumbs_NHW[images]
    whole = _levels(_detail(thumbs, WHOLE))
    alike = np.zeros(len(pairs_P2), bool)
    for box in CROPS:
        cut = _levels(_detail(thumbs, box))
        alike |= _correlated(whole[first], cut[second], ALIKE_PERCENT)
        alike |= _correlated(whole[second], cut[first], ALIKE_PERCENT)
    return alike


def _correlated(left: np.ndarray, right: np.ndarray, percent: int) -> np.ndarray:
    """Return whether the correlation of two rows of levels is at least that: bool, (P,).

    Squared and multiplied out: products of 127 * 127 * 1,024 are exact in float32, the rest fits int64.
    """
    left, right = left.astype(np.float32), right.astype(np.float32)
    both, first, second = (
        np.einsum("pd,pd->p", a, b).astype(np.int64) for a, b in ((left, right), (left, left), (right, right))
    )
    return (both > 0) & (both**2 * 100**2 >= percent**2 * first * second)
