"""The last minutes of both arms, for the absolute rules: requests, and how many were over each bound."""

from collections import deque
from typing import Any

import numpy as np

CANARY, CHAMPION = 0, 1
BOUNDS = ("errors", "over_roll_back", "over_promote")
"""What is counted of the requests: errors; slower than the two bounds on P99."""


class Window:
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
        return int(sum(one[arm, 0] for one in self.minutes))

    def share(self, arm: int, bound: str) -> float:
        """Share of the arm's requests that were over a bound, 0 without requests."""
        over = sum(one[arm, 1 + BOUNDS.index(bound)] for one in self.minutes)
        return float(over) / max(self.requests(arm), 1)

    def sustained(self, arm: int, bound: str, allowed: float) -> bool:
        """Whether the share is above `allowed`, also without the worst minute: one burst is not five minutes."""
        column = 1 + BOUNDS.index(bound)
        overs = [int(one[arm, column]) for one in self.minutes]
        if not overs or self.share(arm, bound) <= allowed:
            return False
        worst = overs.index(max(overs))
        others = [one for nth, one in enumerate(self.minutes) if nth != worst]
        total = sum(int(one[arm, 0]) for one in others)
        return sum(int(one[arm, column]) for one in others) > allowed * total

    def as_dict(self) -> dict[str, Any]:
        return {"length": self.minutes.maxlen, "minutes": [one.tolist() for one in self.minutes]}

    @classmethod
    def from_dict(cls, stored: dict[str, Any]) -> "Window":
        window = cls(stored["length"])
        window.minutes.extend(np.array(one, int) for one in stored["minutes"])
        return window
