"""Latency by spells of some seconds: the canary's share of slow requests minus the champion's, spell by spell.

A pause of one process makes all its requests slow at once. Compared request by request that would be many witnesses;
compared by spells it is one, and what makes both arms slow cancels out.
"""

from typing import Any

import numpy as np


class Spells:
    """The spell that is not over yet: requests and slow ones of each arm."""

    def __init__(self) -> None:
        self.number = -1
        self.open_K = np.zeros(4, int)
        """Requests of canary and champion, slow ones of canary and champion."""

    def add(self, number_N: np.ndarray, canary_N: np.ndarray, slow_N: np.ndarray) -> np.ndarray:
        """Take requests in order; the differences of all spells that are over by then."""
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
        """End the open spell; its difference, if it has one."""
        over_SK, self.open_K = self.open_K[None], np.zeros(4, int)
        return _differences(over_SK)

    def as_dict(self) -> dict[str, Any]:
        return {"number": self.number, "open": self.open_K.tolist()}

    @classmethod
    def from_dict(cls, stored: dict[str, Any]) -> "Spells":
        spells = cls()
        spells.number, spells.open_K = stored["number"], np.array(stored["open"], int)
        return spells


def _differences(counts_SK: np.ndarray) -> np.ndarray:
    """Of the spells in which both arms had requests."""
    both_SK = counts_SK[(counts_SK[:, 0] > 0) & (counts_SK[:, 1] > 0)].astype(float)
    return both_SK[:, 2] / both_SK[:, 0] - both_SK[:, 3] / both_SK[:, 1]
