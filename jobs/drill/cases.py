"""The cases of a drill: a promotion, rollbacks of copies that a fault makes bad, and what befalls the machine."""

import time
from collections.abc import Callable

from jobs.drill.platform import CASE_S, Ground, Step, UnexpectedError, rolled_back
from serve.faults import Fault
from serve.rollout import Rollout

A_TENTH: list[Step] = [{"share": 0.1, "minutes": 60, "requests": 20, "non_inferior": False}]
QUIET_S = 10.0
"""Undisturbed before something happens, and after it."""
AWAY_S = 60.0
LOAD_STEP = 5
"""So many times the rate."""


def promotion(ground: Ground) -> Rollout:
    """A good version: shown, 10, 50, 100 %, champion."""
    one = ground.start(ground.copy())
    return ground.until(one, lambda found: found.state == "promoted", "the promotion")


def bad_from_the_start(ground: Ground) -> Rollout:
    version = ground.copy()
    with ground.fault(version, Fault(error_rate=0.2)):
        return ground.until(ground.start(version), rolled_back, "the rollback")


def bad_at_half(ground: Ground) -> Rollout:
    """It turns bad when it has half of the traffic."""
    version = ground.copy()
    one = ground.start(version)
    ground.until(one, lambda found: found.step == 2, "50 %")
    with ground.fault(version, Fault(error_rate=0.2)):
        return ground.until(one, rolled_back, "the rollback")


def cancelled(ground: Ground) -> Rollout:
    one = ground.start(ground.copy())
    ground.until(one, lambda found: found.step == 1, "10 %")
    ground.wish(one, "rollback")
    return ground.until(one, rolled_back, "the rollback")


def cancelled_and_restarted(ground: Ground) -> Rollout:
    version = ground.copy()
    for _ in range(2):
        one = ground.start(version)
        ground.until(one, lambda found: found.step == 1, "10 %")
        ground.wish(one, "rollback")
        ended = ground.until(one, rolled_back, "the rollback")
    return ended


def third_version(ground: Ground) -> Rollout:
    """A third version is started while the second has its share; then it is cancelled."""
    one = ground.start(ground.copy())
    ground.until(one, lambda found: found.step == 1, "10 %")
    other = ground.start(ground.copy())
    ground.until(one, rolled_back, "the rollback of the second")
    ground.until(other, lambda found: found.step == 1, "10 % of the third")
    ground.wish(other, "rollback")
    return ground.until(other, rolled_back, "the rollback of the third")


def never_ready(ground: Ground) -> Rollout:
    return ground.until(ground.start(ground.copy(broken=True)), rolled_back, "the rollback")


def back_at_full(ground: Ground) -> Rollout:
    """It turns bad when it has all of the traffic."""
    version = ground.copy()
    one = ground.start(version)
    ground.until(one, lambda found: found.step == 3, "100 %")
    with ground.fault(version, Fault(error_rate=0.5)):
        return ground.until(one, rolled_back, "the rollback")


def erring_at_a_tenth(ground: Ground) -> Rollout:
    """It errs in one of five requests while it has 10 %: how long until it is out?"""
    version = ground.copy()
    one = ground.start(version, A_TENTH)
    ground.until(one, lambda found: found.step == 0, "10 %")
    time.sleep(QUIET_S)
    with ground.fault(version, Fault(error_rate=0.2)):
        return ground.until(one, rolled_back, "the rollback")


def database_away(ground: Ground) -> None:
    """PostgreSQL says nothing for a minute."""
    time.sleep(QUIET_S)
    with ground.silent_database():
        time.sleep(AWAY_S)
    time.sleep(QUIET_S)


def load_step(ground: Ground) -> None:
    """Several times as many requests: another process of the champion comes, and goes again afterwards."""
    assert ground.clients is not None
    before, rate = ground.replicas(), ground.clients.rate
    ground.clients.rate = rate * LOAD_STEP
    try:
        _replicas(ground, lambda now: now > before, f"more than {before}")
    finally:
        ground.clients.rate = rate
    _replicas(ground, lambda now: now == before, f"{before}")


def _replicas(ground: Ground, done: Callable[[int], bool], what: str) -> None:
    ends_at = time.monotonic() + CASE_S
    while not done(now := ground.replicas()):
        if time.monotonic() > ends_at:
            raise UnexpectedError(
                f"waited {CASE_S:.0f} s for {what} processes; there are {now}. Is the classifier's "
                "target_ongoing_requests between what both loads keep busy?"
            )
        time.sleep(0.5)


ROLLOUTS: dict[str, Callable[[Ground], Rollout]] = {
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
CASES: dict[str, Callable[[Ground], Rollout | None]] = {
    **ROLLOUTS,
    "database_away": database_away,
    "load_step": load_step,
}
