"""The cases of a drill: a promotion, rollbacks of copies that a fault makes bad, and what befalls the machine."""

import time
from collections.abc import Callable

from jobs.drill.platform import CASE_S, DrillPlatform, Step, UnexpectedError, rolled_back
from serve.faults import Fault
from serve.rollout import Rollout

A_TENTH: list[Step] = [{"share": 0.1, "minutes": 60, "requests": 20, "non_inferior": False}]
QUIET_S = 10.0
"""Undisturbed before something happens, and after it."""
AWAY_S = 60.0
LOAD_STEP = 5
"""So many times the rate."""


def promotion(platform: DrillPlatform) -> Rollout:
    """A good version: shown, 10, 50, 100 %, champion."""
    one = platform.start(platform.copy())
    return platform.until(one, lambda found: found.state == "promoted", "the promotion")


def bad_from_the_start(platform: DrillPlatform) -> Rollout:
    version = platform.copy()
    with platform.fault(version, Fault(error_rate=0.2)):
        return platform.until(platform.start(version), rolled_back, "the rollback")


def bad_at_half(platform: DrillPlatform) -> Rollout:
    """It turns bad when it has half of the traffic."""
    version = platform.copy()
    one = platform.start(version)
    platform.until(one, lambda found: found.step == 2, "50 %")
    with platform.fault(version, Fault(error_rate=0.2)):
        return platform.until(one, rolled_back, "the rollback")


def cancelled(platform: DrillPlatform) -> Rollout:
    one = platform.start(platform.copy())
    platform.until(one, lambda found: found.step == 1, "10 %")
    platform.wish(one, "rollback")
    return platform.until(one, rolled_back, "the rollback")


def cancelled_and_restarted(platform: DrillPlatform) -> Rollout:
    version = platform.copy()
    for _ in range(2):
        one = platform.start(version)
        platform.until(one, lambda found: found.step == 1, "10 %")
        platform.wish(one, "rollback")
        ended = platform.until(one, rolled_back, "the rollback")
    return ended


def third_version(platform: DrillPlatform) -> Rollout:
    """A third version is started while the second has its share; then it is cancelled."""
    one = platform.start(platform.copy())
    platform.until(one, lambda found: found.step == 1, "10 %")
    other = platform.start(platform.copy())
    platform.until(one, rolled_back, "the rollback of the second")
    platform.until(other, lambda found: found.step == 1, "10 % of the third")
    platform.wish(other, "rollback")
    return platform.until(other, rolled_back, "the rollback of the third")


def never_ready(platform: DrillPlatform) -> Rollout:
    return platform.until(platform.start(platform.copy(broken=True)), rolled_back, "the rollback")


def back_at_full(platform: DrillPlatform) -> Rollout:
    """It turns bad when it has all of the traffic."""
    version = platform.copy()
    one = platform.start(version)
    platform.until(one, lambda found: found.step == 3, "100 %")
    with platform.fault(version, Fault(error_rate=0.5)):
        return platform.until(one, rolled_back, "the rollback")


def erring_at_a_tenth(platform: DrillPlatform) -> Rollout:
    """It errs in one of five requests while it has 10 %: how long until it is out?"""
    version = platform.copy()
    one = platform.start(version, A_TENTH)
    platform.until(one, lambda found: found.step == 0, "10 %")
    time.sleep(QUIET_S)
    with platform.fault(version, Fault(error_rate=0.2)):
        return platform.until(one, rolled_back, "the rollback")


def database_away(platform: DrillPlatform) -> None:
    """PostgreSQL says nothing for a minute."""
    time.sleep(QUIET_S)
    with platform.silent_database():
        time.sleep(AWAY_S)
    time.sleep(QUIET_S)


def load_step(platform: DrillPlatform) -> None:
    """Several times as many requests: another process of the champion comes, and goes again afterwards."""
    assert platform.clients is not None
    before, rate = platform.replicas(), platform.clients.rate
    platform.clients.rate = rate * LOAD_STEP
    try:
        _replicas(platform, lambda now: now > before, f"more than {before}")
    finally:
        platform.clients.rate = rate
    _replicas(platform, lambda now: now == before, f"{before}")


def _replicas(platform: DrillPlatform, done: Callable[[int], bool], what: str) -> None:
    ends_at = time.monotonic() + CASE_S
    while not done(now := platform.replicas()):
        if time.monotonic() > ends_at:
            raise UnexpectedError(
                f"waited {CASE_S:.0f} s for {what} processes; there are {now}. Is the classifier's "
                "target_ongoing_requests between what both loads keep busy?"
            )
        time.sleep(0.5)


ROLLOUTS: dict[str, Callable[[DrillPlatform], Rollout]] = {
    "promotion": promotion,
    "bad_from_the_start": bad_from_the_start,
    "bad_at_half": bad_at_half,
    "cancelled": cancelled,
    "cancelled_and_restarted": cancelled_and_restarted,
    "third_version": third_version,
    "never_ready": never_ready,
    "back_at_full": back_at_full,
    "erring_at_a_tenth": erring_at_a_tenth,
}
CASES: dict[str, Callable[[DrillPlatform], Rollout | None]] = {
    **ROLLOUTS,
    "database_away": database_away,
    "load_step": load_step,
}
