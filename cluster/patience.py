"""Repeat a request while a service is away for some seconds, so that its restart does not end an hour's work.

Long work in the cluster calls `patiently`; interactive calls fail at once. Knows no service: the caller says which
errors are worth another attempt. urllib3's `Retry` and botocore's retries know HTTP only; this one also serves
PostgreSQL and pyarrow, and bounds the time rather than the number of attempts.
"""

import random
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

PATIENCE_S = 60.0
"""For ETL: an S3 server or PostgreSQL that is restarted, or moved to another machine, answers again within it."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 2.0


def patiently(
    ask: Callable[[], T],
    *,
    patience_s: float,
    errors: tuple[type[Exception], ...],
    may_pass: Callable[[Exception], bool] = lambda error: True,
) -> T:
    """Repeat a call until there is an answer, with random pauses that double.

    Args:
        ask: safe to repeat.
        patience_s: seconds from the first error after which the last one is raised; 0 asks once. One more
            attempt may be under way when they are over.
        errors: what may be an absence; anything else is raised at once.
        may_pass: whether one of `errors` is worth another attempt.
    """
    pause_s, failed_at = FIRST_PAUSE_S, None
    while True:
        try:
            return ask()
        except errors as error:
            now = time.monotonic()
            failed_at = now if failed_at is None else failed_at
            if now + pause_s > failed_at + patience_s or not may_pass(error):
                raise
        time.sleep(pause_s * random.uniform(0.5, 1))
        pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
