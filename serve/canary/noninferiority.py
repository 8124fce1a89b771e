"""Is the canary at most a margin worse? The evidence that a promotion needs, from counts.

Each patient gives one number Z whose mean is what is asked about. For the difference of two arms that is 1/share for
a bad event under the canary, -1/(1 - share) under the champion, 0 for none: its mean is the difference of the rates,
because a hash drew the patient to the arm (Horvitz & Thompson 1952), also where both rates change with the hour.
Against "the mean is `margin` or more" one bets on less (Waudby-Smith & Ramdas 2024); as Z has few values, their counts
are all that must be kept, and the bound can be found for any margin. Anytime-valid: one may look after every patient.
"""

import math
from dataclasses import dataclass, replace

import numpy as np

STAKES = np.array([0.02, 0.05, 0.1, 0.2, 0.4, 0.7, 0.95])
"""Parts of the most that may be staked without ruin; one bet each."""
FARTHEST = 2.0**24
"""Beyond that many times the present evidence nothing is promised."""


@dataclass(frozen=True, kw_only=True)
class NonInferiorityTest:
    """A mean that must be shown to be below a margin before a promotion."""

    name: str
    margin: float
    values: tuple[float, ...]
    """The values that Z can have; the largest is the worst, one of them is 0."""
    counts: tuple[int, ...]
    """How many patients (or pairs) gave each."""

    def __post_init__(self) -> None:
        if not 0 < self.margin < max(self.values):
            raise ValueError(f"the margin of {self.name} is {self.margin}, not within 0..{max(self.values)}")

    @property
    def total(self) -> int:
        return sum(self.counts)

    @property
    def mean(self) -> float:
        return sum(v * n for v, n in zip(self.values, self.counts, strict=True)) / max(self.total, 1)


def difference(
    name: str, margin: float, share: float, *, canary_bad: int, champion_bad: int, total: int
) -> NonInferiorityTest:
    """Test the canary's rate minus the champion's, among `total` patients of whom `share` were drawn to the canary."""
    counts = (canary_bad, champion_bad, total - canary_bad - champion_bad)
    values = (1 / share, -1 / (1 - share), 0.0)
    return NonInferiorityTest(name=name, margin=margin, values=values, counts=counts)


def paired(
    name: str, margin: float, *, canary_only: int, champion_only: int, total: int
) -> NonInferiorityTest:
    """Test the canary's rate minus the champion's on the same images."""
    counts = (canary_only, champion_only, total - canary_only - champion_only)
    return NonInferiorityTest(name=name, margin=margin, values=(1.0, -1.0, 0.0), counts=counts)


def rate(name: str, bound: float, *, bad: int, total: int) -> NonInferiorityTest:
    """Test one rate against a bound."""
    return NonInferiorityTest(name=name, margin=bound, values=(1.0, 0.0), counts=(bad, total - bad))


def log_evidence(test: NonInferiorityTest, *, margin: float | None = None, times: float = 1.0) -> float:
    """Return the logarithm of the e-value against "the mean is `margin` or more".

    Args:
        times: as if all counts were so many times as large.
    """
    than = test.margin if margin is None else margin
    gains_VB = np.log1p(STAKES * (than - np.array(test.values)[:, None]) / (max(test.values) - than))
    won_B = times * (np.array(test.counts)[:, None] * gains_VB).sum(axis=0)
    most = float(won_B.max())
    return most + math.log(float(np.exp(won_B - most).mean()))


def is_shown(test: NonInferiorityTest, alpha: float) -> bool:
    return log_evidence(test) >= math.log(1 / alpha)


def upper_bound(test: NonInferiorityTest, alpha: float) -> float:
    """Return what the mean is below with confidence 1 - alpha, at all times together; 1 while nothing is known."""
    low, high = max(test.mean, -1.0), 1.0 - 1e-9
    if low >= high or log_evidence(test, margin=high) < math.log(1 / alpha):
        return 1.0
    for _ in range(40):
        middle = (low + high) / 2
        if log_evidence(test, margin=middle) >= math.log(1 / alpha):
            high = middle
        else:
            low = middle
    return high


def remaining_sample_size(test: NonInferiorityTest, alpha: float) -> int | None:
    """Return how many more patients (or pairs) it takes if things stay as they are; None if they never suffice.

    Before the first one it is reckoned as if nothing bad would come, so it is the least that it takes.
    """
    if is_shown(test, alpha):
        return 0
    if test.mean >= test.margin:
        return None
    if not test.total:
        clean = tuple(int(value == 0.0) for value in test.values)
        times = _times(replace(test, counts=clean), alpha)
        return None if times is None else math.ceil(times)
    times = _times(test, alpha)
    return None if times is None else max(1, math.ceil((times - 1) * test.total))


def _times(test: NonInferiorityTest, alpha: float) -> float | None:
    """Return the multiple of the present counts that would show it; None beyond `FARTHEST`."""
    low, high, enough = 1.0, 2.0, math.log(1 / alpha)
    while log_evidence(test, times=high) < enough:
        low, high = high, high * 2
        if high > FARTHEST:
            return None
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (low, middle) if log_evidence(test, times=middle) >= enough else (middle, high)
    return high
