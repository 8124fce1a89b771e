"""How many requests a key may send: a token bucket for each key, in each front-door replica.

The app asks once the caller is known and before the body is read. A replica counts for itself, so several replicas
allow a key several times as much. No library of the lock has a token bucket that takes a clock and a role. Pure
arithmetic.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from serve.access.auth import Caller
from serve.problems import Problem


@dataclass(frozen=True, kw_only=True)
class Rate:
    per_s: float
    """Sustained requests a second."""
    burst: int
    """Requests at once, after a while without any."""

    def __post_init__(self) -> None:
        if not 0 < self.per_s < math.inf or not 1 <= self.burst < math.inf:
            raise ValueError(f"a rate needs per_s > 0 and burst >= 1, got {self.per_s} and {self.burst}")


@dataclass(frozen=True, kw_only=True)
class RateConfig:
    """By role; `rates` of `front_door` in the machine file."""

    client: Rate = field(default_factory=lambda: Rate(per_s=300, burst=600))
    """A site that sends images; about what one replica on half a core can answer, so that a runaway loop is stopped."""
    physician: Rate = field(default_factory=lambda: Rate(per_s=50, burst=200))
    """A person with a web page, which sends several requests at once."""
    operator: Rate = field(default_factory=lambda: Rate(per_s=20, burst=100))
    """A person or a script that watches a rollout."""

    @classmethod
    def from_dict(cls, rates: dict[str, dict[str, Any]]) -> "RateConfig":
        """Read the rates of the machine file.

        Raises:
            TypeError: an unknown role or field.
            ValueError: an impossible rate.
        """
        if not isinstance(rates, dict) or not all(isinstance(rate, dict) for rate in rates.values()):
            raise ValueError("rates take roles, such as client: {per_s: 300, burst: 600}")
        return cls(**{role: Rate(**rate) for role, rate in rates.items()})


@dataclass
class _Bucket:
    tokens: float
    filled_at: float


class RateLimiter:
    """The buckets of one replica, one for each key in use."""

    def __init__(self, config: RateConfig, clock: Callable[[], float] = time.monotonic) -> None:
        self.config = config
        self._clock = clock
        self._buckets: dict[str, _Bucket] = {}

    def take(self, caller: Caller) -> None:
        """Count one request.

        Raises:
            Problem: 429 with the seconds until the next one is allowed; a refused request costs nothing.
        """
        rate: Rate = getattr(self.config, caller.role)
        now = self._clock()
        bucket = self._buckets.setdefault(caller.key_id, _Bucket(float(rate.burst), now))
        bucket.tokens = min(rate.burst, bucket.tokens + (now - bucket.filled_at) * rate.per_s)
        bucket.filled_at = now
        if bucket.tokens < 1:
            wait_s = max(1, math.ceil((1 - bucket.tokens) / rate.per_s))
            raise Problem(
                429,
                f"this key may send {rate.per_s:g} requests a second and {rate.burst} at once; wait",
                reason="rate",
                headers={"Retry-After": str(wait_s)},
            )
        bucket.tokens -= 1
