"""Sends alerts: one JSON document to the webhook of the settings, tried a few times.

`jobs.etl` and the controller of rollouts (`serve.control.background_sync`) call `send` and go on: a webhook that
is away is logged and reported, and changes no verdict. An alert carries names of versions, checks and addresses,
never patient data; the webhook's own address may hold a secret and is never logged.
"""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import httpx

from cluster.settings import Settings

ATTEMPTS = 3
TIMEOUT_S = 5.0
BACKOFF_S = 0.5
"""Before the second attempt; doubled before each further one."""
AGAIN = frozenset({408, 425, 429})
"""Answers besides 5xx after which another attempt may succeed."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Delivery:
    delivered: bool
    attempts: int
    why: str = ""
    """Why it was not delivered, in a few words; else empty."""

    def __str__(self) -> str:
        return "delivered" if self.delivered else f"not delivered: {self.why}"


def send(
    settings: Settings,
    event: str,
    summary: str,
    details: Mapping[str, Any],
    *,
    wait: Callable[[float], None] = time.sleep,
) -> Delivery:
    """Post an alert; a failure is returned, not raised. Takes at most 17 seconds.

    Args:
        event: a code that programs may act on, e.g. `dataset_halted`.
        summary: one line for people.
        details: more of it, JSON-able and free of patient data.
    """
    if settings.alert_webhook is None:
        logger.warning("RAYDIOLOGY_ALERT_WEBHOOK is not set: the alert %s is not sent", event)
        return Delivery(delivered=False, attempts=0, why="RAYDIOLOGY_ALERT_WEBHOOK is not set")
    body = {
        "source": "raydiology",
        "environment": settings.environment,
        "event": event,
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "text": summary,  # the field that chat webhooks show
        **details,
    }
    why = ""
    for attempt in range(1, ATTEMPTS + 1):
        if attempt > 1:
            wait(BACKOFF_S * 2 ** (attempt - 2))
        try:
            answer = httpx.post(settings.alert_webhook, json=body, timeout=TIMEOUT_S)
        except httpx.InvalidURL:
            return _lost(event, attempt, "RAYDIOLOGY_ALERT_WEBHOOK is no address")
        except httpx.TransportError as error:
            why = f"{type(error).__name__}: the webhook does not answer"
            continue
        if answer.is_success:
            return Delivery(delivered=True, attempts=attempt)
        why = f"the webhook answered {answer.status_code}"
        if answer.status_code < 500 and answer.status_code not in AGAIN:
            return _lost(event, attempt, why)
    return _lost(event, ATTEMPTS, why)


def _lost(event: str, attempts: int, why: str) -> Delivery:
    logger.error("the alert %s was not delivered after %d attempts: %s", event, attempts, why)
    return Delivery(delivered=False, attempts=attempts, why=why)
