"""The last minutes of both arms, for the absolute guardrails: requests, and how many were over each bound."""

from collections import deque
from typing import Any

import numpy as np

from serve.canary.guardrails import BOUNDS

CANARY, CHAMPION = 0, 1


class SlidingWindow:
    """Closed minutes, the newest last, each an array (2 arms, 1 + bounds)."""

    def __init__(self, minutes: int) -> None:
        self.minutes: deque[np.ndarray] = deque(maxlen=minutes)

    def close(self, counts_AK: np.ndarray, skipped: int) -> None:
        """Append a minute, and as many without any request as passed since."""
        self.minutes.append(counts_AK)
        for _ in range(min(skipped, self.minutes.maxlen or 0)):
            self.minutes.append(np.zeros_like(counts_AK))

    @property
    def full(self) -> bool:
        return len(self.minutes) == self.minutes.maxlen

    def requests(self, arm: int) -> int:
        """Return how many requests an arm had."""
        return int(sum(minute[arm, 0] for minute in self.minutes))

    def share(self, arm: int, bound: str) -> float:
        """Return the share of the arm's requests that were over a bound, 0 without requests."""
        over = sum(minute[arm, 1 + BOUNDS.index(bound)] for minute in self.minutes)
        return float(over) / max(self.requests(arm), 1)

    def sustained(self, arm: int, bound: str, allowed: float) -> bool:
        """Tell whether the share is above `allowed`, also without the worst minute: a burst is not five minutes."""
        column = 1 + BOUNDS.index(bound)
        overs = [int(minute[arm, column]) for minute in self.minutes]
        if not overs or self.share(arm, bound) <= allowed:
            return False
        worst = overs.index(max(overs))
        others = [minute for nth, minute in enumerate(self.minutes) if nth != worst]
        total = sum(int(minute[arm, 0]) for minute in others)
        return sum(int(minute[arm, column]) for minute in others) > allowed * total

    def as_dict(self) -> dict[str, Any]:
        return {"length": self.minutes.maxlen, "minutes": [minute.tolist() for minute in self.minutes]}

    @classmethod
    def from_dict(cls, stored: dict[str, Any]) -> "SlidingWindow":
        window = cls(stored["length"])
        window.minutes.extend(np.array(minute, int) for minute in stored["minutes"])
        return window
