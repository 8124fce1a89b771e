"""Latency by spells of some seconds: the canary's share of slow requests minus the champion's, spell by spell.

A pause of one process makes all its requests slow at once. Compared request by request that would be many witnesses;
compared by spells it is one, and what makes both arms slow cancels out.
"""

from itertools import pairwise
from typing import Any

import numpy as np

from serve.window import CANARY, CHAMPION


class Spells:
    """The spell that is not over yet: requests and slow ones of each arm."""

    def __init__(self) -> None:
        self.number = -1
        self.open_A2 = np.zeros((2, 2), int)

    def add(self, number_N: np.ndarray, canary_N: np.ndarray, slow_N: np.ndarray) -> list[float]:
        """Take requests in order; the differences of all spells that are over by then."""
        over: list[float] = []
        starts = np.flatnonzero(np.diff(number_N, prepend=self.number - 1 if len(number_N) else 0))
        for start, end in pairwise([*starts, len(number_N)]):
            if number_N[start] != self.number:
                over += self.close()
                self.number = int(number_N[start])
            canary, slow = canary_N[start:end], slow_N[start:end]
            self.open_A2[CANARY] += (int(canary.sum()), int((canary & slow).sum()))
            self.open_A2[CHAMPION] += (int((~canary).sum()), int((~canary & slow).sum()))
        return over

    def close(self) -> list[float]:
        """End the open spell; its difference, or nothing when one arm had no request in it."""
        requests_A, slow_A = self.open_A2.T
        self.open_A2 = np.zeros((2, 2), int)
        if not requests_A.all():
            return []
        shares_A = slow_A / requests_A
        return [float(shares_A[CANARY] - shares_A[CHAMPION])]

    def as_dict(self) -> dict[str, Any]:
        return {"number": self.number, "open": self.open_A2.tolist()}

    @classmethod
    def from_dict(cls, stored: dict[str, Any]) -> "Spells":
        spells = cls()
        spells.number, spells.open_A2 = stored["number"], np.array(stored["open"], int)
        return spells
