"""The bets of `serve.wealth`: what each event multiplies the wealth by, as logarithms.

Three hypotheses, all about bounded or binary things and none about a distribution:
- an event befalls the canary no more than its share of the traffic (two arms; Turner, Ly & Grünwald 2024, "safe
  tests"; Lindon & Malek 2022, count data). The share is known, because keys are drawn to arms by a hash;
- a rate is at most, or at least, a bound (one arm);
- the difference of two shares is at most a tolerance, on average (both arms, side by side).
"""

import numpy as np

MORE = np.array([2.5, 5, 10, 20, 40, 80, 160])
"""How many times as often as the champion an event may befall the canary: one bet each. Below about 1.6 times no
bet wins: such a canary is for the margins of the promotion, not for a rollback."""
MORE_OR_LESS = np.array([1 / 4, 1 / 2, 2 / 3, 3 / 2, 2, 4, 8])
"""The same for things that may change either way."""
ABOVE = np.array([1.25, 1.5, 2, 3, 5, 10, 30])
"""Rates above a bound, as multiples of it."""
BELOW = np.array([0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8])
"""Rates below a bound, as multiples of it."""
STAKES = np.array([0.05, 0.1, 0.2, 0.35, 0.5, 0.7, 0.9])
"""Parts of the wealth that are put on a difference."""


def share_bets(canary_N: np.ndarray, share_N: np.ndarray, ratios_B: np.ndarray = MORE) -> np.ndarray:
    """Bets that events befall the canary `ratios_B` times as often as the champion.

    Args:
        canary_N: whom each event befell.
        share_N: the probability, above 0 and below 1, with which its patient was drawn to the canary.
    """
    odds_NB = np.log1p(share_N[:, None] * (ratios_B - 1))
    return np.where(canary_N[:, None], np.log(ratios_B), 0.0) - odds_NB


def rate_bets(
    bad_N: np.ndarray, good_N: np.ndarray, bound_N: np.ndarray, multiples_B: np.ndarray
) -> np.ndarray:
    """Bets that a rate is a multiple of its bound: against "at most" with multiples above 1, "at least" below 1."""
    bound_N1 = bound_N[:, None]
    rates_NB = np.minimum(bound_N1 * multiples_B, (1 + bound_N1) / 2)
    return bad_N[:, None] * np.log(rates_NB / bound_N1) + good_N[:, None] * np.log(
        (1 - rates_NB) / (1 - bound_N1)
    )


def difference_bets(difference_N: np.ndarray, tolerance: float) -> np.ndarray:
    """Bets that differences within [-1, 1] are above `tolerance` on average."""
    return np.log1p(STAKES / (1 + tolerance) * (difference_N[:, None] - tolerance))
