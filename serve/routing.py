"""Which version answers a request: a sticky, weighted choice that is pure arithmetic.

A key lands on a point of [0, 1). Every version but the champion owns an interval that starts at a fixed place,
so raising a canary's weight only moves keys from the champion to it, never back and forth.
Knows neither Ray nor HTTP.
"""

import hashlib
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Target:
    """A live version of a model."""

    version: str
    weight: float
    """Share of the keys, 0 to 1."""
    role: Literal["champion", "canary", "previous"]
    bundle_key: str
    """Where its release bundle lies."""

    def __post_init__(self) -> None:
        if not 0 <= self.weight <= 1:
            raise ValueError(f"the weight of version {self.version} is {self.weight}, not between 0 and 1")


@dataclass(frozen=True, kw_only=True)
class Routes:
    """All live versions of one model."""

    model: str
    targets: tuple[Target, ...]

    def __post_init__(self) -> None:
        champions = [one.version for one in self.targets if one.role == "champion"]
        if len(champions) != 1:
            raise ValueError(f"{self.model} needs exactly one champion, got {champions}")
        if len({one.version for one in self.targets}) != len(self.targets):
            raise ValueError(f"{self.model} lists a version twice")
        total = sum(one.weight for one in self.targets)
        if abs(total - 1) > 1e-9:
            raise ValueError(f"the weights of {self.model} sum to {total}, not to 1")

    @property
    def champion(self) -> Target:
        return next(one for one in self.targets if one.role == "champion")


def point(key: str, salt: str) -> float:
    """Where a key lands: uniform on [0, 1), the first 52 bits of SHA-256 over salt and key."""
    digest = hashlib.sha256(f"{salt}\0{key}".encode()).digest()
    return (int.from_bytes(digest[:8], "big") >> 12) / 2**52


def assign(routes: Routes, key: str) -> Target:
    """The version that `key` is given, always the same for the same weights.

    Args:
        key: a pseudonym of patient, study or request; the caller chose the stickiest it has.
    """
    where, start = point(key, routes.model), 0.0
    for target in sorted(routes.targets, key=lambda one: (len(one.version), one.version)):
        if target.role == "champion":
            continue
        if start <= where < start + target.weight:
            return target
        start += target.weight
    return routes.champion
