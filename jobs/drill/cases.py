"""The cases of a drill: a promotion, rollbacks of copies that a fault makes bad, and failures of the machine."""

import time
from collections.abc import Callable, Sequence

from jobs.drill.platform import CASE_S, STEPS, DrillPlatform, Step, UnexpectedError, rolled_back
from jobs.runtime.waiting import wait_for
from serve.control.plan import Rollout
from serve.routing.fault_injection import Fault

A_TENTH: list[Step] = [{"share": 0.1, "minutes": 60, "requests": 20, "non_inferior": False}]
QUIET_S = 10.0
"""Undisturbed before something happens, and after it."""
AWAY_S = 60.0
LOAD_STEP = 5
"""So many times the rate."""


def promotion(platform: DrillPlatform) -> Rollout:
    """Roll a good version out: mirrored traffic, 10, 50, 100 %, champion."""
    rollout = platform.start(platform.copy())
    return platform.until(rollout, lambda now: now.state == "promoted", "the promotion")


def bad_from_the_start(platform: DrillPlatform) -> Rollout:
    version = platform.copy()
    with platform.fault(version, Fault(error_rate=0.2)):
        return platform.until(platform.start(version), rolled_back, "the rollback")


def turning_bad(
    at_step: int, share: str, *, error_rate: float = 0.2, steps: Sequence[Step] = STEPS, quiet_s: float = 0.0
) -> Callable[[DrillPlatform], Rollout]:
    """Return a case in which the version starts to err at a step, and is rolled back."""

    def case(platform: DrillPlatform) -> Rollout:
        version = platform.copy()
        rollout = platform.start(version, steps)
        platform.until(rollout, lambda now: now.step == at_step, share)
        time.sleep(quiet_s)
        with platform.fault(version, Fault(error_rate=error_rate)):
            return platform.until(rollout, rolled_back, "the rollback")

    return case


def cancelled(platform: DrillPlatform) -> Rollout:
    rollout = platform.start(platform.copy())
    platform.until(rollout, lambda now: now.step == 1, "10 %")
    platform.wish(rollout, "rollback")
    return platform.until(rollout, rolled_back, "the rollback")


def cancelled_and_restarted(platform: DrillPlatform) -> Rollout:
    version = platform.copy()
    for _ in range(2):
        rollout = platform.start(version)
        platform.until(rollout, lambda now: now.step == 1, "10 %")
        platform.wish(rollout, "rollback")
        ended = platform.until(rollout, rolled_back, "the rollback")
    return ended


def third_version(platform: DrillPlatform) -> Rollout:
    """Start a third version while the second has its share, then cancel the third."""
    rollout = platform.start(platform.copy())
    platform.until(rollout, lambda now: now.step == 1, "10 %")
    other = platform.start(platform.copy())
    platform.until(rollout, rolled_back, "the rollback of the second")
    platform.until(other, lambda now: now.step == 1, "10 % of the third")
    platform.wish(other, "rollback")
    return platform.until(other, rolled_back, "the rollback of the third")


def never_ready(platform: DrillPlatform) -> Rollout:
    return platform.until(platform.start(platform.copy(broken=True)), rolled_back, "the rollback")


def database_away(platform: DrillPlatform) -> None:
    """Suspend PostgreSQL for a minute."""
    time.sleep(QUIET_S)
    with platform.silent_database():
        time.sleep(AWAY_S)
    time.sleep(QUIET_S)


def load_step(platform: DrillPlatform) -> None:
    """Multiply the load: another process of the champion has to start, and to end again afterwards."""
    assert platform.clients is not None
    before, rate = platform.replicas(), platform.clients.rate
    platform.clients.rate = rate * LOAD_STEP
    try:
        _replicas(platform, lambda now: now > before, f"more than {before}")
    finally:
        platform.clients.rate = rate
    _replicas(platform, lambda now: now == before, f"{before}")


def _replicas(platform: DrillPlatform, done: Callable[[int], bool], what: str) -> None:
    def late() -> UnexpectedError:
        return UnexpectedError(
            f"waited {CASE_S:.0f} s for {what} processes; there are {platform.replicas()}. Is the classifier's "
            "target_ongoing_requests between what both loads keep busy?"
        )

    wait_for(lambda: done(platform.replicas()), CASE_S, late)


ROLLOUTS: dict[str, Callable[[DrillPlatform], Rollout]] = {
    "promotion": promotion,
    "bad_from_the_start": bad_from_the_start,
    "bad_at_half": turning_bad(2, "50 %"),
    "cancelled": cancelled,
    "cancelled_and_restarted": cancelled_and_restarted,
    "third_version": third_version,
    "never_ready": never_ready,
    "back_at_full": turning_bad(3, "100 %", error_rate=0.5),
    "erring_at_a_tenth": turning_bad(0, "10 %", steps=A_TENTH, quiet_s=QUIET_S),
}
CASES: dict[str, Callable[[DrillPlatform], Rollout | None]] = {
    **ROLLOUTS,
    "database_away": database_away,
    "load_step": load_step,
}
