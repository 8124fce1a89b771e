"""Whether a dependency answers, as this front door last saw it: who fails tells, who probes tells, everybody asks.

While something is known to be away, no request waits for it. Knows neither PostgreSQL nor S3.
"""

import logging
import time

logger = logging.getLogger(__name__)


class Presence:
    """One dependency; it is taken to be here until somebody finds otherwise."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.away_since: float | None = None
        """Seconds of `time.monotonic`."""
        self.why = ""
        """Kind of the first error, free of addresses and secrets."""

    @property
    def here(self) -> bool:
        return self.away_since is None

    def lost(self, error: BaseException) -> None:
        if self.away_since is None:
            self.away_since, self.why = time.monotonic(), type(error.__cause__ or error).__name__
            logger.error("%s is away: %s: %s", self.name, self.why, error)

    def found(self) -> None:
        if self.away_since is not None:
            logger.warning("%s is back after %.1f s", self.name, time.monotonic() - self.away_since)
        self.away_since, self.why = None, ""

    def __str__(self) -> str:
        return "ok" if self.here else f"away: {self.why}"
