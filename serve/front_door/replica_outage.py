"""Times in which a version had no running replica: a late answer then is not the model's fault.

Serve's handles hold requests back until a replica runs, so a dead version and a slow one both end at the deadline.
They differ in the list of replicas that the handle could send to.
"""

import math
import time
from typing import Any

INCIDENT_S = 30
"""Infrastructure failures that name no process count as one incident within this many seconds."""
DISCOVERY_S = 1.0
"""Seconds after its first use within which a handle learns its replicas; before that an empty list means nothing."""


def unnamed_incident(version: str) -> str:
    """Name an incident of which only the version and the time are known."""
    return f"{version}@{int(time.time()) // INCIDENT_S}"


def running_replicas(handle: Any) -> frozenset[str]:
    """Return the full ids of the replicas that a Serve handle could send to.

    Ray Serve has no public call for it: these are attributes of `ray.serve.handle.DeploymentHandle` in Ray 2.60.
    """
    if not handle.is_initialized:
        return frozenset()
    router = handle._router._asyncio_router._request_router
    return (
        frozenset()
        if router is None
        else frozenset(replica.to_full_id_str() for replica in router.curr_replicas)
    )


class ReplicaOutage:
    """The last outage of one version, as one front door saw it."""

    def __init__(self, version: str) -> None:
        self._version = version
        self._incident: str | None = None
        """Name of the incident since the last answer."""
        self._first_look_s: float | None = None
        self._last_look_s = -math.inf
        self._known: frozenset[str] = frozenset()
        self._away_s = -math.inf

    def answered(self) -> None:
        """Note an answer: the incident is over."""
        self._incident = None

    def record_death(self, incident: str | None) -> str:
        """Note that a request met a dead replica; an outage that follows is part of the same incident.

        Args:
            incident: names the dead replica, if known.
        Returns:
            the incident's name.
        """
        self._incident = incident or self._incident or unnamed_incident(self._version)
        return self._incident

    def observe(self, runs: frozenset[str], now_s: float) -> None:
        """Take the replicas that run at a time of the monotonic clock.

        If no replica seen last time is still running, the version was down in between, even if others run by now.
        """
        if self._first_look_s is None:
            self._first_look_s = now_s
        if not runs and now_s - self._first_look_s >= DISCOVERY_S:
            self._note(now_s)
        elif runs and self._known and not runs & self._known:
            self._note(self._last_look_s)
        self._last_look_s = now_s
        self._known = runs or self._known

    def _note(self, away_s: float) -> None:
        self._away_s = max(self._away_s, away_s)
        self._incident = self._incident or unnamed_incident(self._version)

    def outage_since(self, since_s: float) -> str | None:
        """Return the incident's name if the version was down at `since_s` (monotonic) or observed down later."""
        if self._away_s < since_s:
            return None
        return self._incident or unnamed_incident(self._version)
