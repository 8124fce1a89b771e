"""A circuit breaker: a version that does not answer at all is no longer asked, but for one request now and then.

So requests that are assigned to a dead version do not each wait for it. Plain arithmetic over a clock.
"""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class BreakerConfig:
    failures: int = 5
    """So many in a row open it."""
    open_s: float = 5.0
    """How long until one request tries again."""

    def __post_init__(self) -> None:
        if self.failures < 1 or self.open_s <= 0:
            raise ValueError("a breaker needs at least one failure and a positive time")


class Breaker:
    def __init__(self, config: BreakerConfig) -> None:
        self.config = config
        self._in_a_row = 0
        self._tries_at: float | None = None

    @property
    def open(self) -> bool:
        return self._tries_at is not None

    def allows(self, now_s: float) -> bool:
        """Whether to ask the version; while the breaker is open, True for one caller each `open_s`."""
        if self._tries_at is None:
            return True
        if now_s < self._tries_at:
            return False
        self._tries_at = now_s + self.config.open_s
        return True

    def answered(self) -> None:
        """The version said something, if only that it cannot."""
        self._in_a_row, self._tries_at = 0, None

    def silent(self, now_s: float) -> None:
        """It could not be reached, or did not answer in time."""
        self._in_a_row += 1
        if self._in_a_row >= self.config.failures:
            self._tries_at = now_s + self.config.open_s
