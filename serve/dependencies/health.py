"""Whether a dependency answers, as last seen by this front door.

Failing calls mark it down, probes mark it up, and no request waits for it while it is down. Knows neither PostgreSQL
nor S3.
"""

import logging
import time

logger = logging.getLogger(__name__)


class DependencyHealth:
    """The health of one dependency; it counts as up until a call fails."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.away_since: float | None = None
        """Seconds of `time.monotonic`; None while it is up."""
        self.why = ""
        """Type of the first error, free of addresses and secrets."""

    @property
    def is_up(self) -> bool:
        return self.away_since is None

    def mark_down(self, error: BaseException) -> None:
        if self.away_since is None:
            self.away_since, self.why = time.monotonic(), type(error.__cause__ or error).__name__
            logger.error("%s is away: %s: %s", self.name, self.why, error)

    def mark_up(self) -> None:
        if self.away_since is not None:
            logger.warning("%s is back after %.1f s", self.name, time.monotonic() - self.away_since)
        self.away_since, self.why = None, ""

    def __str__(self) -> str:
        return "ok" if self.is_up else f"away: {self.why}"
