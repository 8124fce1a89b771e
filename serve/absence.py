"""Times in which a version has no process that could answer: what is late then is no fault of its model.

Serve's handles hold requests back until a replica runs, so that a dead version and a slow one look alike: both end at
the deadline. They differ in the list of replicas that the handle could send to.
"""

import math
import time
from typing import Any

INCIDENT_S = 30
"""Failures of infrastructure that name no process are one incident within so many seconds."""
TOLD_S = 1.0
"""A handle hears of replicas within so many seconds of its first use; until then it may not know them yet."""


def unnamed_incident(version: str) -> str:
    """Name of an incident of which no more is known than when it was."""
    return f"{version}@{int(time.time()) // INCIDENT_S}"


def running(handle: Any) -> frozenset[str]:
    """The replicas that a Serve handle could send to, by their full ids.

    Serve has no public call for it: these are attributes of `ray.serve.handle.DeploymentHandle` in Ray 2.60.
    """
    if not handle.is_initialized:
        return frozenset()
    router = handle._router._asyncio_router._request_router
    return frozenset() if router is None else frozenset(one.to_full_id_str() for one in router.curr_replicas)


class Absence:
    """The last absence of one version, as one front door saw it."""

    def __init__(self, version: str) -> None:
        self._version = version
        self._incident: str | None = None
        """Since the last answer."""
        self._first_look_s: float | None = None
        self._last_look_s = -math.inf
        self._known: frozenset[str] = frozenset()
        self._away_s = -math.inf

    def answered(self) -> None:
        """The version answered."""
        self._incident = None

    def died(self, incident: str | None) -> str:
        """A request found a replica dead; the absence that may follow is part of the same incident.

        Args:
            incident: which died, where that is known.
        Returns:
            the incident's name.
        """
        self._incident = incident or self._incident or unnamed_incident(self._version)
        return self._incident

    def look(self, runs: frozenset[str], now_s: float) -> None:
        """Take what `running` says at a time of the monotonic clock.

        Where none of the replicas of the last look is left, the version was away in between, though others run by now.
        """
        if self._first_look_s is None:
            self._first_look_s = now_s
        if not runs and now_s - self._first_look_s >= TOLD_S:
            self._note(now_s)
        elif runs and self._known and not runs & self._known:
            self._note(self._last_look_s)
        self._last_look_s = now_s
        self._known = runs or self._known

    def _note(self, away_s: float) -> None:
        self._away_s = max(self._away_s, away_s)
        self._incident = self._incident or unnamed_incident(self._version)

    def since(self, since_s: float) -> str | None:
        """The incident's name, if the version was away at `since_s` (monotonic) or at a look after it."""
        if self._away_s < since_s:
            return None
        return self._incident or unnamed_incident(self._version)
