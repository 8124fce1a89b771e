"""What bets against hypotheses have won: evidence that may be looked at after every request.

A row is one hypothesis that would leave the canary alone ("errors befall the canary no more than its share of the
traffic"). Several bets run against it side by side, each for another size of the defect, and each begins anew every
minute with a part of the stake, so that a version that turns bad late is caught too. Nobody gets rich by betting
against a true hypothesis: were it true, the wealth would ever reach 1/alpha with probability alpha at most, however
often and whenever one looks (Ville 1939).

Sources: Waudby-Smith & Ramdas 2024, "Estimating means of bounded random variables by betting"; Shin, Ramdas &
Rinaldo 2024, "E-detectors" (restarts). Knows neither requests nor versions.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

BETS = 7
"""Bets that run against each hypothesis, each with an equal part of the stake."""
MOST = 600.0
"""Where a logarithm stands for "beyond doubt", so that the number itself stays finite."""


class Wealth:
    """Wealth of every row, as logarithms; 1, that is 0, at the start."""

    def __init__(self, rows: Sequence[str]) -> None:
        self.rows = tuple(rows)
        self._index = {name: nth for nth, name in enumerate(self.rows)}
        self.minute = 1
        self.staked_RB = np.full((len(self.rows), BETS), math.log(0.5))
        self.peak_R = np.zeros(len(self.rows))

    def begin(self, minute: int) -> None:
        """Stake 1/(m(m+1)) anew for each minute up to this one; half of everything was staked in minute 1.

        The parts of all minutes that will ever be add up to 1.
        """
        if minute > self.minute:
            part = 1 / (self.minute + 1) - 1 / (minute + 1)
            self.staked_RB = np.logaddexp(self.staked_RB, math.log(part))
            self.minute = minute

    def bet(self, row: str, won_NB: np.ndarray) -> None:
        """Let the bets of a row win or lose, one event after the other, all in the present minute.

        Args:
            won_NB: logarithms of the factors, whose mean is at most 1 under the hypothesis.
        """
        if not len(won_NB):
            return
        nth = self._index[row]
        path_NB = np.concatenate([self.staked_RB[nth][None], won_NB]).cumsum(axis=0)[1:]
        self.staked_RB[nth] = path_NB[-1]
        self.peak_R[nth] = max(self.peak_R[nth], math.log(self._evidence(path_NB).max()))

    def bet_at_once(self, rows: Sequence[str], won_KB: np.ndarray, ceiling_K: np.ndarray) -> None:
        """The same for one event each of several rows.

        Args:
            ceiling_K: what is won above it is given away, so that old merits are soon forgotten.
        """
        places = [self._index[one] for one in rows]
        won_KB = self.staked_RB[places] + won_KB
        self.staked_RB[places] = np.minimum(won_KB, ceiling_K[:, None])
        self.peak_R[places] = np.maximum(self.peak_R[places], np.log(self._evidence(won_KB)))

    def peak(self, row: str) -> float:
        """Logarithm of the most that a row was ever worth: what decides, whenever it is looked at."""
        return float(self.peak_R[self._index[row]])

    def now(self, row: str) -> float:
        """Logarithm of what a row is worth now."""
        return math.log(self._evidence(self.staked_RB[self._index[row]][None])[0])

    def _evidence(self, path_NB: np.ndarray) -> np.ndarray:
        """The mean of all bets, with what was not staked yet."""
        return np.exp(np.minimum(path_NB, MOST)).sum(axis=1) / BETS + 1 / (self.minute + 1)

    def as_dict(self) -> dict[str, Any]:
        return {
            "minute": self.minute,
            "rows": {
                name: {"staked": self.staked_RB[nth].tolist(), "peak": float(self.peak_R[nth])}
                for nth, name in enumerate(self.rows)
            },
        }

    @classmethod
    def from_dict(cls, stored: dict[str, Any]) -> "Wealth":
        wealth = cls(tuple(stored["rows"]))
        wealth.minute = stored["minute"]
        wealth.staked_RB = np.array([one["staked"] for one in stored["rows"].values()], dtype=float)
        wealth.peak_R = np.array([one["peak"] for one in stored["rows"].values()], dtype=float)
        return wealth
