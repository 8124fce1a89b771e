"""A circuit breaker: a version that does not answer is skipped, but for one trial request now and then.

Requests assigned to a dead version therefore do not each wait for it. No library of the lock has one. Plain
arithmetic over a clock.
"""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class CircuitBreakerConfig:
    failures: int = 5
    """Consecutive failures that open the breaker."""
    open_s: float = 5.0
    """Seconds until one request tries again."""

    def __post_init__(self) -> None:
        if self.failures < 1 or self.open_s <= 0:
            raise ValueError("a breaker needs at least one failure and a positive time")


class CircuitBreaker:
    def __init__(self, config: CircuitBreakerConfig) -> None:
        self.config = config
        self._in_a_row = 0
        self._tries_at: float | None = None

    @property
    def open(self) -> bool:
        return self._tries_at is not None

    def allows(self, now_s: float) -> bool:
        """Return True if the version may be asked; while open, for one caller every `open_s` seconds."""
        if self._tries_at is None:
            return True
        if now_s < self._tries_at:
            return False
        self._tries_at = now_s + self.config.open_s
        return True

    def record_success(self) -> None:
        """Note an answer, an error of the model included."""
        self._in_a_row, self._tries_at = 0, None

    def record_failure(self, now_s: float) -> None:
        """Note that the version could not be reached, or did not answer in time."""
        self._in_a_row += 1
        if self._in_a_row >= self.config.failures:
            self._tries_at = now_s + self.config.open_s
