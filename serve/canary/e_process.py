"""E-processes: evidence against hypotheses that may be looked at after every request.

A row is one hypothesis that would leave the canary alone ("errors befall the canary no more than its share of the
traffic"). An e-process is the wealth of a gambler who bets against it: several bets run side by side, each for another
size of the defect, and each begins anew with a part of the stake at every step of the ramp and every minute, so that a
version that turns bad late is caught too. If the hypothesis is true, the e-value ever reaches 1/alpha with probability
alpha at most, however often and whenever it is looked at (Ville 1939).

Three kinds of hypotheses, all about bounded or binary values and none about a distribution:
- an event befalls the canary no more than its share of the traffic (two arms; Turner, Ly & Grünwald 2024, "safe
  tests"; Lindon & Malek 2022, count data). The share is known, because keys are drawn to arms by a hash;
- a rate is at most, or at least, a bound (one arm);
- the difference of two shares is at most a tolerance, on average (both arms, side by side).

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
"""Part of the stake at the start of each of the first steps; the rest is spread over later ones as over minutes."""
MOST = 600.0
"""The logarithm of an e-value beyond doubt, at which it is cut so that the number itself stays finite."""

MORE = np.array([2.5, 5, 10, 20, 40, 80, 160])
"""How many times as often as the champion an event may befall the canary: one bet each. Below about 1.6 times no
bet wins: such a canary is for the margins of the promotion, not for a rollback."""
MORE_OR_LESS = np.array([1 / 4, 1 / 2, 2 / 3, 3 / 2, 2, 4, 8])
"""The same for what may change either way."""
ABOVE = np.array([1.25, 1.5, 2, 3, 5, 10, 30])
"""Rates above a bound, as multiples of it."""
BELOW = np.array([0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8])
"""Rates below a bound, as multiples of it."""
STAKES = np.array([0.05, 0.1, 0.2, 0.35, 0.5, 0.7, 0.9])
"""Parts of the wealth that are put on a difference."""


def mixture_weight(minute: int, step: int) -> float:
    """Return the part of the stake that was put in up to a minute and a step, 0 to 1."""
    later = 1 - OF_MINUTES - STEPS * OF_STEP
    after = max(step - STEPS, 0)
    return OF_MINUTES * minute / (minute + 1) + min(step, STEPS) * OF_STEP + later * after / (after + 1)


class EProcesses:
    """One e-process a row, as logarithms; each e-value is 1, that is 0, at the start."""

    def __init__(self, rows: Sequence[str]) -> None:
        self.rows = tuple(rows)
        self._index = {name: nth for nth, name in enumerate(self.rows)}
        self.minute, self.step = 1, 0
        self.max_R = np.zeros(len(self.rows))
        """Logarithm of the largest e-value that each row ever had."""
        self.bets_RB = np.full((len(self.rows), BETS), math.log(mixture_weight(1, 0)))
        """Logarithm of what each bet is worth."""

    def begin(self, *, minute: int | None = None, step: int | None = None) -> None:
        """Begin a minute or a step (and all up to it), and put in its part of the stake."""
        before = mixture_weight(self.minute, self.step)
        self.minute, self.step = max(self.minute, minute or 0), max(self.step, step or 0)
        if (part := mixture_weight(self.minute, self.step) - before) > 0:
            self.bets_RB = np.logaddexp(self.bets_RB, math.log(part))

    def update(self, row: str, factors_NB: np.ndarray) -> None:
        """Multiply the bets of a row by one event after the other, all in the present minute.

        Args:
            factors_NB: logarithms of the factors, whose mean is at most 1 under the hypothesis.
        """
        if not len(factors_NB):
            return
        nth = self._index[row]
        path_NB = np.concatenate([self.bets_RB[nth][None], factors_NB]).cumsum(axis=0)[1:]
        self.bets_RB[nth] = path_NB[-1]
        self.max_R[nth] = max(self.max_R[nth], math.log(self._e_values(path_NB).max()))

    def update_rows(self, rows: Sequence[str], factors_KB: np.ndarray, ceiling_K: np.ndarray) -> None:
        """Multiply the bets of several rows by one event each.

        Args:
            ceiling_K: what is won above it is given away, so that old merits are soon forgotten.
        """
        places = [self._index[row] for row in rows]
        bets_KB = self.bets_RB[places] + factors_KB
        self.bets_RB[places] = np.minimum(bets_KB, ceiling_K[:, None])
        self.max_R[places] = np.maximum(self.max_R[places], np.log(self._e_values(bets_KB)))

    def max_log_e_value(self, row: str) -> float:
        """Return the logarithm of a row's largest e-value so far, which decides whenever it is looked at."""
        return float(self.max_R[self._index[row]])

    def log_e_value(self, row: str) -> float:
        """Return the logarithm of a row's present e-value."""
        return math.log(self._e_values(self.bets_RB[self._index[row]][None])[0])

    def _e_values(self, path_NB: np.ndarray) -> np.ndarray:
        """Return the mean of all bets, with the part of the stake that was not put in yet."""
        return (
            np.exp(np.minimum(path_NB, MOST)).sum(axis=1) / BETS + 1 - mixture_weight(self.minute, self.step)
        )

    def as_dict(self) -> dict[str, Any]:
        return {
            "minute": self.minute,
            "step": self.step,
            "rows": {
                name: {"staked": self.bets_RB[nth].tolist(), "peak": float(self.max_R[nth])}
                for nth, name in enumerate(self.rows)
            },
        }

    @classmethod
    def from_dict(cls, stored: dict[str, Any]) -> "EProcesses":
        processes = cls(tuple(stored["rows"]))
        processes.minute, processes.step = stored["minute"], stored["step"]
        processes.bets_RB = np.array([row["staked"] for row in stored["rows"].values()], dtype=float)
        processes.max_R = np.array([row["peak"] for row in stored["rows"].values()], dtype=float)
        return processes


def untouched_row(minute: int, step: int) -> dict[str, Any]:
    """Return the stored form of an e-process that was never updated, at a minute and a step."""
    return {"staked": [math.log(mixture_weight(minute, step))] * BETS, "peak": 0.0}


def share_bets(canary_N: np.ndarray, share_N: np.ndarray, ratios_B: np.ndarray = MORE) -> np.ndarray:
    """Bet that events befall the canary `ratios_B` times as often as the champion.

    Args:
        canary_N: whether each event befell the canary.
        share_N: the probability, above 0 and below 1, with which its patient was drawn to the canary.
    Returns:
        logarithms of the factors, (N, B).
    """
    odds_NB = np.log1p(share_N[:, None] * (ratios_B - 1))
    return np.where(canary_N[:, None], np.log(ratios_B), 0.0) - odds_NB


def rate_bets(
    bad_N: np.ndarray, good_N: np.ndarray, bound_N: np.ndarray, multiples_B: np.ndarray
) -> np.ndarray:
    """Bet that a rate is a multiple of its bound: against "at most" with multiples above 1, "at least" below 1.

    Args:
        bad_N: counts of bad events; of good ones: `good_N`.
    Returns:
        logarithms of the factors, (N, B).
    """
    bound_N1 = bound_N[:, None]
    rates_NB = np.minimum(bound_N1 * multiples_B, (1 + bound_N1) / 2)
    return bad_N[:, None] * np.log(rates_NB / bound_N1) + good_N[:, None] * np.log(
        (1 - rates_NB) / (1 - bound_N1)
    )


def difference_bets(difference_N: np.ndarray, tolerance: float) -> np.ndarray:
    """Bet that differences within [-1, 1] are above `tolerance` on average; returns logarithms of factors, (N, B)."""
    return np.log1p(STAKES / (1 + tolerance) * (difference_N[:, None] - tolerance))
