"""What bets against hypotheses have won: evidence that may be looked at after every request.

A row is one hypothesis that would leave the canary alone ("errors befall the canary no more than its share of the
traffic"). Several bets run against it side by side, each for another size of the defect, and each begins anew with a
part of the stake at every step of the ramp and every minute, so that a version that turns bad late is caught too.
Nobody gets rich by betting against a true hypothesis: were it true, the wealth would ever reach 1/alpha with
probability alpha at most, however often and whenever one looks (Ville 1939).

Sources: Waudby-Smith & Ramdas 2024, "Estimating means of bounded random variables by betting"; Shin, Ramdas &
Rinaldo 2024, "E-detectors" (restarts). Knows neither requests nor versions.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

BETS = 7
"""Bets that run against each hypothesis, each with an equal part of the stake."""
OF_MINUTES = 0.3
"""Part of the stake that is spread over the minutes: 1/(m(m+1)) of it in minute m."""
OF_STEP, STEPS = 0.13, 5
"""Part of the stake at the start of each of the first steps; what is left is spread over later ones as over minutes."""
MOST = 600.0
"""Where a logarithm stands for "beyond doubt", so that the number itself stays finite."""


def staked(minute: int, step: int) -> float:
    """The part of everything that was staked up to a minute and a step; never more than 1."""
    later = 1 - OF_MINUTES - STEPS * OF_STEP
    after = max(step - STEPS, 0)
    return OF_MINUTES * minute / (minute + 1) + min(step, STEPS) * OF_STEP + later * after / (after + 1)


class Wealth:
    """Wealth of every row, as logarithms; 1, that is 0, at the start."""

    def __init__(self, rows: Sequence[str]) -> None:
        self.rows = tuple(rows)
        self._index = {name: nth for nth, name in enumerate(self.rows)}
        self.minute, self.step = 1, 0
        self.peak_R = np.zeros(len(self.rows))
        self.staked_RB = np.full((len(self.rows), BETS), math.log(staked(1, 0)))

    def begin(self, *, minute: int | None = None, step: int | None = None) -> None:
        """A minute or a step begins (and all up to it), and with it its part of the stake."""
        before = staked(self.minute, self.step)
        self.minute, self.step = max(self.minute, minute or 0), max(self.step, step or 0)
        if (part := staked(self.minute, self.step) - before) > 0:
            self.staked_RB = np.logaddexp(self.staked_RB, math.log(part))

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
        return np.exp(np.minimum(path_NB, MOST)).sum(axis=1) / BETS + 1 - staked(self.minute, self.step)

    def as_dict(self) -> dict[str, Any]:
        return {
            "minute": self.minute,
            "step": self.step,
            "rows": {
                name: {"staked": self.staked_RB[nth].tolist(), "peak": float(self.peak_R[nth])}
                for nth, name in enumerate(self.rows)
            },
        }

    @classmethod
    def from_dict(cls, stored: dict[str, Any]) -> "Wealth":
        wealth = cls(tuple(stored["rows"]))
        wealth.minute, wealth.step = stored["minute"], stored["step"]
        wealth.staked_RB = np.array([one["staked"] for one in stored["rows"].values()], dtype=float)
        wealth.peak_R = np.array([one["peak"] for one in stored["rows"].values()], dtype=float)
        return wealth
