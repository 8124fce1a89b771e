"""Non-inferiority of a model to the champion: both answer the same images, and differences are counted by image.

Pure arithmetic on which answers are right.
"""

from collections.abc import Sequence

import numpy as np

from train.metrics.bootstrap import Resampling
from train.metrics.gate_inputs import Comparison

ONE_SIDED = 5.0
"""Percentile of the lower 95 % bound, one-sided: only "is it worse" is tested."""


def compare(
    right_N: np.ndarray, champion_right_N: np.ndarray, groups: Sequence[str], champion: str
) -> Comparison:
    """Compare in pairs over images, resampled over groups; at least one image.

    Source: non-inferiority by a confidence bound of the paired difference, ICH E9 section 3.3.2.
    """
    gained_N = right_N.astype(np.int8) - champion_right_N.astype(np.int8)
    resampling = Resampling(groups)
    sums_R2 = resampling.sums(np.column_stack([gained_N, np.ones(len(gained_N))]))
    drawn_R = sums_R2[:, 0] / sums_R2[:, 1]
    return Comparison(
        champion=champion,
        difference=resampling.estimate(float(gained_N.mean()), drawn_R),
        bound=float(np.percentile(drawn_R, ONE_SIDED)),
        only_right=int((gained_N > 0).sum()),
        only_wrong=int((gained_N < 0).sum()),
    )
