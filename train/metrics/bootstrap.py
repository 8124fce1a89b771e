"""Confidence intervals: 95 %, from a bootstrap over whole groups of test images.

Images of one patient are not independent, so patients (or groups of near-duplicates) are drawn, never images;
`scipy.stats.bootstrap` draws single observations. One `Resampling` holds the draws of one set of images, so that its
figures share them. Pure arithmetic.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

RESAMPLES = 1000
INTERVAL = (2.5, 97.5)
CHUNK = 100
"""Resamples computed at a time, to bound the memory."""
LARGEST_MULTIPLICITY = 255


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A figure with its 95 % bootstrap interval over groups."""

    value: float
    low: float
    high: float
    images: int
    groups: int

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def flat(self, name: str) -> dict[str, float]:
        """Return `name`, `name_low`, `name_high`, as MLflow and tables take them."""
        return {name: self.value, f"{name}_low": self.low, f"{name}_high": self.high}


def flat(**estimates: Estimate | None) -> dict[str, float]:
    """Flatten estimates by name, without those that are None."""
    return {
        key: value
        for name, estimate in estimates.items()
        if estimate is not None
        for key, value in estimate.flat(name).items()
    }


class Resampling:
    """Draws, with replacement, of the groups of at least one image."""

    def __init__(self, groups_N: Sequence[str], *, resamples: int = RESAMPLES, seed: int = 0) -> None:
        _, self._group_N = np.unique(np.asarray(groups_N), return_inverse=True)
        self.images = len(self._group_N)
        self.groups = int(self._group_N.max()) + 1
        rng = np.random.default_rng(seed)
        even_G = np.full(self.groups, 1 / self.groups)
        self._draws_RG = np.empty((resamples, self.groups), np.uint8)
        for start in range(0, resamples, CHUNK):
            part_RG = self._draws_RG[start : start + CHUNK]
            part_RG[:] = rng.multinomial(self.groups, even_G, size=len(part_RG)).clip(
                max=LARGEST_MULTIPLICITY
            )

    def sums(self, values_ND: np.ndarray) -> np.ndarray:
        """Compute sums_RD: the sum of each column in each resample; a vector is one column."""
        columns_ND = values_ND.reshape(self.images, -1).astype(np.float64)
        sums_GD = np.zeros((self.groups, columns_ND.shape[1]))
        np.add.at(sums_GD, self._group_N, columns_ND)
        chunks = range(0, len(self._draws_RG), CHUNK)
        return np.concatenate([self._draws_RG[start : start + CHUNK] @ sums_GD for start in chunks])

    def weights(self) -> Iterator[np.ndarray]:
        """Yield weights_CN, chunk after chunk: how often each resample drew each image."""
        for start in range(0, len(self._draws_RG), CHUNK):
            yield self._draws_RG[start : start + CHUNK, self._group_N].astype(np.float64)

    def estimate(self, value: float, values_R: np.ndarray) -> Estimate:
        """Return `value` with the percentile interval of `values_R`; NaN marks a resample without a figure."""
        found_R = values_R[np.isfinite(values_R)]
        low, high = np.percentile(found_R, INTERVAL) if len(found_R) else (value, value)
        return Estimate(
            value=float(value), low=float(low), high=float(high), images=self.images, groups=self.groups
        )

    def share(self, hits_N: np.ndarray, among_N: np.ndarray | None = None) -> Estimate | None:
        """Estimate the share of true values, of all images or of those in `among_N`; None if that is empty.

        Its images and groups are those of the denominator.
        """
        among_N = np.ones(self.images, bool) if among_N is None else among_N
        if not among_N.any():
            return None
        sums_R2 = self.sums(np.column_stack([hits_N & among_N, among_N]))
        estimate = self.estimate(float(hits_N[among_N].mean()), ratio(sums_R2[:, 0], sums_R2[:, 1]))
        return replace(estimate, images=int(among_N.sum()), groups=len(np.unique(self._group_N[among_N])))


def share(hits_N: np.ndarray, groups_N: Sequence[str], *, seed: int = 0) -> Estimate:
    """Estimate the share of true values, or the mean of numbers; at least one image."""
    resampling = Resampling(groups_N, seed=seed)
    sums_R2 = resampling.sums(np.column_stack([hits_N, np.ones(len(hits_N))]))
    return resampling.estimate(float(hits_N.mean()), sums_R2[:, 0] / sums_R2[:, 1])


def ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """Divide element by element; NaN where the denominator is 0."""
    return np.divide(above, below, out=np.full(np.broadcast(above, below).shape, np.nan), where=below > 0)
