"""Find what makes an answer about an accepted image doubtful: exposure, contrast, sharpness, size.

`quality.doubted` calls it for each image that serving judged, on a thumbnail; serving then abstains. No dataset depends
on it. Each threshold lies beyond all of 3,785 real X-rays (docs/experiments.md). Knows neither Ray nor torch.
"""

from typing import Literal

import numpy as np

Concern = Literal["underexposed", "overexposed", "low_contrast", "blurred", "small"]

DARK_BELOW = 70
"""Level that all but 1 % of the pixels are below: X-rays have at least 71."""
WHITE, WHITE_SHARE = 254, 0.20
"""Pixels from this level on show nothing; X-rays have at most 13.5 % of them."""
RANGE_BELOW = 60
"""Levels between the 1st and the 99th percentile: X-rays have at least 62."""
SHARPNESS_BELOW = 0.09
"""Standard deviation of the Laplacian over that of the levels, at 128 x 128: X-rays have at least 0.099, after a blur
of 1 % of the side 0.08, of 2 % 0.04 (medians)."""
SMALL_SHARE = 0.5
"""Of the model's input: an image with a shorter side than this is mostly made up when it is enlarged."""


def concerns(levels_HW: np.ndarray) -> tuple[Concern, ...]:
    """Return the concerns about a thumbnail as it is shown: levels_HW, uint8, 128 x 128."""
    levels_HW = levels_HW.astype(np.float32)
    low, high = np.percentile(levels_HW, (1, 99))
    names: list[Concern] = []
    if high < DARK_BELOW:
        names.append("underexposed")
    if (levels_HW >= WHITE).mean() > WHITE_SHARE:
        names.append("overexposed")
    if high - low < RANGE_BELOW:
        names.append("low_contrast")
    if _sharpness(levels_HW) < SHARPNESS_BELOW:
        names.append("blurred")
    return tuple(names)


def size_concerns(width: int, height: int, side: int) -> tuple[Concern, ...]:
    """Return the concerns about an image of this size, for a model that takes `side` x `side` pixels."""
    return ("small",) if min(width, height) < side * SMALL_SHARE else ()


def _sharpness(levels_HW: np.ndarray) -> float:
    inner_HW = levels_HW[1:-1, 1:-1]
    laplacian_HW = (
        4 * inner_HW - levels_HW[:-2, 1:-1] - levels_HW[2:, 1:-1] - levels_HW[1:-1, :-2] - levels_HW[1:-1, 2:]
    )
    return float(laplacian_HW.std() / (levels_HW.std() + 1e-6))
