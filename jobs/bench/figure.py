"""What one benchmark measured, as `make bench` prints and stores it, and how sides are timed in turns."""

import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Figure:
    name: str
    ours: float
    peer: float
    peer_name: str
    ratio: float
    """Ours over the peer's."""
    unit: str

    @classmethod
    def of(cls, name: str, ours: float, peer: float, peer_name: str, unit: str) -> "Figure":
        """Round to three decimals; the ratio is of the numbers as they were."""
        ratio = round(ours / peer, 3)
        ours, peer = round(ours, 3), round(peer, 3)
        return cls(name=name, ours=ours, peer=peer, peer_name=peer_name, ratio=ratio, unit=unit)


def in_turns(
    sides: Mapping[str, Callable[[], Any]], *, rounds: int, warm_up: int, clock: Callable[[], float]
) -> dict[str, float]:
    """Return the median seconds of each side; the sides take turns, and the first `warm_up` rounds do not count."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for nth in range(warm_up + rounds):
        for name, work in sides.items():
            started_s = clock()
            work()
            if nth >= warm_up:
                seconds[name].append(clock() - started_s)
    return {name: statistics.median(each) for name, each in seconds.items()}
