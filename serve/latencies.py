"""Latencies as a histogram with bins that grow by a tenth: quantiles within 10 %, in constant memory."""

import numpy as np

GROWTH = 1.1
BINS = 120
"""From 1 ms to 84 s; what is outside falls into the first or the last bin."""


class Latencies:
    def __init__(self) -> None:
        self.counts_H = np.zeros(BINS, int)

    def add(self, latency_N: np.ndarray) -> None:
        """Milliseconds; those that are not a number are left out."""
        known_N = latency_N[np.isfinite(latency_N)]
        bins_N = np.ceil(np.log(np.maximum(known_N, 1.0)) / np.log(GROWTH)).astype(int)
        self.counts_H += np.bincount(np.minimum(bins_N, BINS - 1), minlength=BINS)

    @property
    def total(self) -> int:
        return int(self.counts_H.sum())

    def quantile(self, q: float) -> float | None:
        """Upper edge of the bin that holds it, in ms; None without latencies."""
        if not self.total:
            return None
        place = int(np.searchsorted(np.cumsum(self.counts_H), q * self.total))
        return float(GROWTH ** min(place, BINS - 1))

    def as_list(self) -> list[int]:
        return [int(one) for one in self.counts_H]

    @classmethod
    def from_list(cls, stored: list[int]) -> "Latencies":
        latencies = cls()
        latencies.counts_H = np.array(stored, int)
        return latencies
