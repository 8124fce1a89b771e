"""The fixed rules that rollouts are decided by elsewhere, for `jobs.bench.canary`.

Each takes what it would look at, minute by minute, and returns the minute in which it rolls back. Both absolute rules
use the bounds that are ours too, 1 % errors and a P99 of 500 ms, which are the examples of Flagger's documentation.
"""

import math
from collections.abc import Callable

import numpy as np

from serve.canary.observations import Requests

SUCCESS, P99_MS = 0.99, 500.0
FLAGGER_THRESHOLD = 5
"""`interval: 1m`, `threshold: 5`: that many failed checks, added up, roll back (docs.flagger.app)."""
ARGO_INTERVAL, ARGO_FAILURE_LIMIT = 5, 3
"""`interval: 5m`, `failureLimit: 3`: more failed measurements than that end a rollout (Argo Rollouts, "Analysis")."""
Z = 1.96
"""Two-sided p = 0.05."""


class Minutes:
    """The counts of a rollout, minute by minute."""

    def __init__(self, requests: Requests, minutes: int) -> None:
        minute_N = (requests.at_N // 60).astype(int)
        failed_N = requests.error_N | requests.invalid_N

        def count(counted_N: np.ndarray) -> np.ndarray:
            return np.bincount(minute_N[counted_N], minlength=minutes)

        canary_N = requests.canary_N
        self.canary_M, self.canary_failed_M = count(canary_N), count(canary_N & failed_N)
        self.champion_M, self.champion_failed_M = count(~canary_N), count(~canary_N & failed_N)
        self.canary_slow_M = count(canary_N & (requests.latency_N > P99_MS))


def _failed_checks(seen: Minutes, every: int) -> np.ndarray:
    """Find the intervals that miss the success rate or the latency; an interval without requests passes."""
    starts = np.arange(0, len(seen.canary_M), every)
    total, failed, slow = (
        np.add.reduceat(counts_M, starts)
        for counts_M in (seen.canary_M, seen.canary_failed_M, seen.canary_slow_M)
    )
    return (failed > (1 - SUCCESS) * total) | (slow > 0.01 * total)


def flagger(seen: Minutes) -> int | None:
    """Return the minute at whose end Flagger rolls back, counted from 1; None if it does not."""
    failed = np.flatnonzero(_failed_checks(seen, 1))
    return int(failed[FLAGGER_THRESHOLD - 1]) + 1 if len(failed) >= FLAGGER_THRESHOLD else None


def argo(seen: Minutes) -> int | None:
    """Return the same for Argo Rollouts."""
    failed = np.flatnonzero(_failed_checks(seen, ARGO_INTERVAL))
    if len(failed) <= ARGO_FAILURE_LIMIT:
        return None
    return (int(failed[ARGO_FAILURE_LIMIT]) + 1) * ARGO_INTERVAL


def peeking(seen: Minutes) -> int | None:
    """Return the same for a z-test of two proportions each minute, the canary worse."""
    canary, failed = np.cumsum(seen.canary_M), np.cumsum(seen.canary_failed_M)
    champion, champion_failed = np.cumsum(seen.champion_M), np.cumsum(seen.champion_failed_M)
    pooled = (failed + champion_failed) / np.maximum(canary + champion, 1)
    spread = np.sqrt(pooled * (1 - pooled) * (1 / np.maximum(canary, 1) + 1 / np.maximum(champion, 1)))
    difference = failed / np.maximum(canary, 1) - champion_failed / np.maximum(champion, 1)
    over = np.flatnonzero((spread > 0) & (difference > Z * spread))
    return int(over[0]) + 1 if len(over) else None


PEERS: dict[str, Callable[[Minutes], int | None]] = {
    "Flagger": flagger,
    "Argo": argo,
    "z-test each minute": peeking,
}


def requests_until(seen: Minutes, minute: int | None) -> float:
    """Count canary requests until a rollback at the end of a minute; infinite without one."""
    return math.inf if minute is None else float(seen.canary_M[:minute].sum())
