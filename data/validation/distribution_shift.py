"""Measure how far two sets of images differ: population stability index of shares, Kolmogorov-Smirnov of grey values.

`data.validation.shift_checks` asks. A shift counts only when it is both large and certain: its size has to reach a
limit, and chance may give one like it once in so many times. The images of a patient are alike, so certainty is
reckoned with patients (groups), not with images. Pure arithmetic over counts: knows no images, no store. scipy
gives the distributions; it has no stability index, and its Kolmogorov-Smirnov test takes samples, not histograms
weighted to patients.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy import special, stats

SMALLEST_EXPECTED = 5.0
"""Rarer values are counted together: below, the chi-square distribution is no good approximation (Cochran 1954)."""
SMOOTHING = 0.5
"""Added to each count of an index (Jeffreys), so that an empty value gives a finite one."""


@dataclass(frozen=True, kw_only=True)
class Shift:
    size: float
    """Population stability index (0: the same; from 0.25 by custom: another population), or the greatest
    distance of two cumulative distributions, 0 to 1."""
    p: float
    """Probability of one at least as large by chance; 1 where nothing can be said."""
    groups: tuple[float, float]
    """Effective number of patients before and after."""

    def beyond(self, size: float, p: float) -> bool:
        """Tell whether the shift is both that large and that improbable."""
        return self.size >= size and self.p < p


NO_SHIFT = Shift(size=0.0, p=1.0, groups=(0.0, 0.0))


def shares(before: Mapping[str, int], after: Mapping[str, int], groups: tuple[float, float]) -> Shift:
    """Compare how often each value occurs.

    Args:
        before, after: value → number of images.
        groups: how many patients these images are of.
    Source: population stability index, the symmetric Kullback-Leibler divergence of Jeffreys (1946); Pearson's
    chi-square test of homogeneity, on counts scaled to patients.
    """
    values = sorted({*before, *after})
    counts_2V = np.array(
        [[counts_of.get(value, 0) for value in values] for counts_of in (before, after)], np.float64
    )
    totals_2 = counts_2V.sum(axis=1)
    if not values or not totals_2.all():
        return NO_SHIFT
    smooth_2V = counts_2V + SMOOTHING
    first_V, second_V = smooth_2V / smooth_2V.sum(axis=1, keepdims=True)
    size = float(((second_V - first_V) * np.log(second_V / first_V)).sum())
    people_2 = np.minimum(np.asarray(groups, np.float64), totals_2)
    scaled_2V = _pool_rare(counts_2V * (people_2 / totals_2)[:, None])
    p = 1.0
    if scaled_2V.shape[1] > 1:
        p = float(stats.chi2_contingency(scaled_2V, correction=False).pvalue)
    return Shift(size=size, p=p, groups=(float(people_2[0]), float(people_2[1])))


def grey_values(
    before: Mapping[str, np.ndarray], after: Mapping[str, np.ndarray], groups: tuple[float, float]
) -> Shift:
    """Compare two distributions of a figure of the images, class by class.

    The classes of `before` are weighted to the mix of `after`, so that other shares of the classes alone are no
    shift; classes that only one side has are left out.

    Args:
        before, after: class → histogram_B of the figure, number of images a bin.
    Source: two-sample Kolmogorov-Smirnov, the asymptotic distribution of its statistic; effective size of a
    weighted sample after Kish (1965).
    """
    both = [name for name in sorted({*before} & {*after}) if before[name].sum() and after[name].sum()]
    if not both:
        return NO_SHIFT
    first_CB, second_CB = (
        np.array([side_of[name] for name in both], np.float64) for side_of in (before, after)
    )
    first_C, second_C = first_CB.sum(axis=1), second_CB.sum(axis=1)
    weights_C = second_C / first_C
    first_B, second_B = (weights_C[:, None] * first_CB).sum(axis=0), second_CB.sum(axis=0)
    size = float(np.abs(np.cumsum(first_B) / first_B.sum() - np.cumsum(second_B) / second_B.sum()).max())
    images = (
        float((weights_C * first_C).sum() ** 2 / (weights_C**2 * first_C).sum()),
        float(second_C.sum()),
    )
    every = tuple(sum(float(side_of.sum()) for side_of in side.values()) for side in (before, after))
    people = tuple(
        min(mine * many / whole, mine) for mine, many, whole in zip(images, groups, every, strict=True)
    )
    root = np.sqrt(people[0] * people[1] / (people[0] + people[1]))
    return Shift(size=size, p=float(special.kolmogorov(size * root)), groups=(people[0], people[1]))


def chance_of_none(share: float, groups: float) -> float:
    """Return the probability that a value of this share occurs in none of so many patients."""
    return float((1 - share) ** groups)


def _pool_rare(counts_2V: np.ndarray) -> np.ndarray:
    """Put the values together whose expected count is too small on either side."""
    expected_2V = counts_2V.sum(axis=1, keepdims=True) * counts_2V.sum(axis=0) / counts_2V.sum()
    rare_V = (expected_2V < SMALLEST_EXPECTED).any(axis=0)
    kept_2V = counts_2V[:, ~rare_V]
    pooled_2 = counts_2V[:, rare_V].sum(axis=1)
    return np.column_stack([kept_2V, pooled_2]) if pooled_2.sum() else kept_2V
