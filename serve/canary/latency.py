"""Latency of both arms in constant memory: a histogram for quantiles, and blocks of some seconds for the comparison.

A pause of one process makes all its requests slow at once. Compared request by request that would be many witnesses;
compared by blocks it is one, and what slows both arms cancels out.
"""

from typing import Any

import numpy as np

GROWTH = 1.1
"""Each bin's upper edge over the one below, so that quantiles are within 10 %."""
BINS = 120
"""From 1 ms to 84 s; what lies outside falls into the first or the last bin."""


class LatencyHistogram:
    """Counts of latencies in bins that grow by a tenth."""

    def __init__(self) -> None:
        self.counts_H = np.zeros(BINS, int)

    def add(self, latency_N: np.ndarray) -> None:
        """Count latencies in milliseconds; those that are not a number are left out."""
        known_N = latency_N[np.isfinite(latency_N)]
        bins_N = np.ceil(np.log(np.maximum(known_N, 1.0)) / np.log(GROWTH)).astype(int)
        self.counts_H += np.bincount(np.minimum(bins_N, BINS - 1), minlength=BINS)

    @property
    def total(self) -> int:
        return int(self.counts_H.sum())

    def quantile(self, q: float) -> float | None:
        """Return the upper edge in ms of the bin that holds the quantile; None without latencies."""
        if not self.total:
            return None
        place = int(np.searchsorted(np.cumsum(self.counts_H), q * self.total))
        return float(GROWTH ** min(place, BINS - 1))

    def as_list(self) -> list[int]:
        return [int(count) for count in self.counts_H]

    @classmethod
    def from_list(cls, stored: list[int]) -> "LatencyHistogram":
        histogram = cls()
        histogram.counts_H = np.array(stored, int)
        return histogram


class LatencyBlocks:
    """The block that is still open: requests and slow requests of each arm."""

    def __init__(self) -> None:
        self.number = -1
        self.open_K = np.zeros(4, int)
        """Requests of canary and champion, slow ones of canary and champion."""

    def add(self, number_N: np.ndarray, canary_N: np.ndarray, slow_N: np.ndarray) -> np.ndarray:
        """Count requests in the order of their blocks.

        Args:
            number_N: the block of each request; never falls.
        Returns:
            the canary's share of slow requests minus the champion's, of each block that ended.
        """
        if not len(number_N):
            return np.zeros(0)
        first, last = max(self.number, 0), int(number_N[-1])
        kinds = (canary_N, ~canary_N, canary_N & slow_N, ~canary_N & slow_N)
        counts_SK = np.column_stack(
            [np.bincount(number_N[kind] - first, minlength=last - first + 1) for kind in kinds]
        )
        counts_SK[0] += self.open_K
        self.number, self.open_K = last, counts_SK[-1]
        return _differences(counts_SK[:-1])

    def close(self) -> np.ndarray:
        """End the open block; returns its difference, or nothing where an arm had no request."""
        ended_SK, self.open_K = self.open_K[None], np.zeros(4, int)
        return _differences(ended_SK)

    def as_dict(self) -> dict[str, Any]:
        return {"number": self.number, "open": self.open_K.tolist()}

    @classmethod
    def from_dict(cls, stored: dict[str, Any]) -> "LatencyBlocks":
        blocks = cls()
        blocks.number, blocks.open_K = stored["number"], np.array(stored["open"], int)
        return blocks


def _differences(counts_SK: np.ndarray) -> np.ndarray:
    """Return the difference of each block in which both arms had requests."""
    both_SK = counts_SK[(counts_SK[:, 0] > 0) & (counts_SK[:, 1] > 0)].astype(float)
    return both_SK[:, 2] / both_SK[:, 0] - both_SK[:, 3] / both_SK[:, 1]
