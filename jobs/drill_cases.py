"""The cases of a drill: a promotion and seven rollbacks, each of a copy of the champion that a fault makes bad."""

import contextlib
import json
import os
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from cluster import bundles
from cluster.database import connect
from cluster.home import Home
from cluster.objects import ObjectStore
from cluster.process import marked
from cluster.registry import VIT, Registry
from cluster.settings import Settings
from data.taxonomy import taxonomy
from serve import desired, faults, operator_calls, rollouts
from serve.faults import Fault
from serve.guardrails import GuardrailConfig
from serve.rollout import Rollout

ACTOR = "jobs.drill"
STEPS: list[dict[str, Any]] = [
    {"share": 0.0, "minutes": 0.1, "pairs": 20, "non_inferior": False},
    {"share": 0.1, "minutes": 0.4, "requests": 20, "non_inferior": False},
    {"share": 0.5, "minutes": 0.4, "requests": 100, "non_inferior": False},
    {"share": 1.0, "minutes": 0.3, "requests": 50, "non_inferior": False},
]
"""A quick ramp: a drill is about what happens on the way, not about how much evidence a promotion needs."""
GUARDRAILS = GuardrailConfig(labels=taxonomy().names, promote_p99_ms=5_000, roll_back_p99_ms=5_000)
"""Without a bound on waiting: with processes that are killed all the while it would never allow a promotion."""
PREY = ("ServeReplica:xray-vit", "ServeReplica:front-door", "ServeReplica:rollout-controller")
"""What Ray calls the processes that are killed in turns."""
CASE_S = 240.0
"""How long a case may take to come to what it waits for."""


class UnexpectedError(Exception):
    """A rollout did not do what the case is about."""

    def __init__(self, why: str, rollout: Rollout) -> None:
        super().__init__(why)
        self.rollout = rollout


@dataclass(kw_only=True)
class Ground:
    """The platform, and copies of its champion."""

    settings: Settings
    registry: Registry
    draw: random.Random
    copies: int = 0
    killed: list[str] = field(default_factory=list)

    def copy(self, *, broken: bool = False) -> str:
        """Register the champion's weights as a new version; a broken one cannot be loaded."""
        self.copies += 1
        store = ObjectStore(self.settings)
        with tempfile.TemporaryDirectory() as folder:
            directory = Path(folder)
            key = self.registry.bundle_key(VIT, self.champion)
            bundles.fetch(store, key, directory)
            files: dict[str, bytes | Path] = {
                one.name: one
                for one in directory.iterdir()
                if one.name not in (bundles.COMMIT, bundles.SIGNATURE)
            }
            card = json.loads((directory / "card.json").read_text())
            card["drill"] = f"{time.time():.3f}-{self.copies}"
            if broken:
                card["architecture"]["timm"] = "vit_tiny_patch16_224"
                card["architecture"]["kwargs"] = {"depth": 1}
            files["card.json"] = json.dumps(card, sort_keys=True, indent=1).encode()
            return self.registry.register(
                VIT, bundles.publish(store, files), None, {"verdict": "pass", "drill": "yes"}
            )

    @property
    def champion(self) -> str:
        with connect(self.settings.database_url) as connection:
            return desired.read(connection)[VIT].champion.version

    def start(self, version: str) -> Rollout:
        one, _ = operator_calls.begin(
            self.settings, model=VIT, version=version, steps=STEPS, guardrails=GUARDRAILS, actor=ACTOR
        )
        return one

    def now(self, one: Rollout) -> Rollout:
        with connect(self.settings.database_url) as connection:
            return rollouts.get(connection, one.id)

    def until(self, one: Rollout, done: Callable[[Rollout], bool], what: str) -> Rollout:
        """Raises UnexpectedError: it ended otherwise, or takes too long."""
        ends_at = time.monotonic() + CASE_S
        while time.monotonic() < ends_at:
            found = self.now(one)
            if done(found):
                return found
            if found.ended_at is not None:
                raise UnexpectedError(
                    f"waited for {what}, and it was {found.state}: {found.verdict.get('why')}", found
                )
            time.sleep(0.25)
        found = self.now(one)
        raise UnexpectedError(f"waited {CASE_S:.0f} s for {what}; it is {found.state}", found)

    def wish(self, one: Rollout, wanted: Any) -> None:
        with connect(self.settings.database_url) as connection:
            rollouts.wish(connection, one.id, wanted, actor=ACTOR)

    def end(self, one: Rollout) -> Rollout:
        """Roll back what did not go as it should, so that the next case starts from the champion."""
        if self.now(one).ended_at is None:
            self.wish(one, "rollback")
            with contextlib.suppress(UnexpectedError):
                return self.until(one, _rolled_back, "the end")
        return self.now(one)

    @contextmanager
    def fault(self, version: str, fault: Fault) -> Iterator[None]:
        with connect(self.settings.database_url) as connection:
            faults.put(connection, VIT, version, fault, actor=ACTOR)
        try:
            yield
        finally:
            with connect(self.settings.database_url) as connection:
                faults.clear(connection, actor=ACTOR)

    def kill_one(self, nth: int) -> None:
        kind = PREY[nth % len(PREY)]
        prey = [one for one in marked(Home.from_env(os.environ).id, "ray") if kind in _title(one)]
        if prey:
            chosen = self.draw.choice(prey)
            self.killed.append(_title(chosen).removeprefix("ray::").split("(")[0][:60])
            with contextlib.suppress(psutil.NoSuchProcess):
                chosen.kill()


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def _rolled_back(one: Rollout) -> bool:
    return one.state == "rolled_back"


def promotion(ground: Ground) -> Rollout:
    """A good version: shown, 10, 50, 100 %, champion."""
    one = ground.start(ground.copy())
    return ground.until(one, lambda found: found.state == "promoted", "the promotion")


def bad_from_the_start(ground: Ground) -> Rollout:
    version = ground.copy()
    with ground.fault(version, Fault(error_rate=0.2)):
        return ground.until(ground.start(version), _rolled_back, "the rollback")


def bad_at_half(ground: Ground) -> Rollout:
    """It turns bad when it has half of the traffic."""
    version = ground.copy()
    one = ground.start(version)
    ground.until(one, lambda found: found.step == 2, "50 %")
    with ground.fault(version, Fault(error_rate=0.2)):
        return ground.until(one, _rolled_back, "the rollback")


def cancelled(ground: Ground) -> Rollout:
    one = ground.start(ground.copy())
    ground.until(one, lambda found: found.step == 1, "10 %")
    ground.wish(one, "rollback")
    return ground.until(one, _rolled_back, "the rollback")


def cancelled_and_restarted(ground: Ground) -> Rollout:
    version = ground.copy()
    for _ in range(2):
        one = ground.start(version)
        ground.until(one, lambda found: found.step == 1, "10 %")
        ground.wish(one, "rollback")
        ended = ground.until(one, _rolled_back, "the rollback")
    return ended


def third_version(ground: Ground) -> Rollout:
    """A third version is started while the second has its share; then it is cancelled."""
    one = ground.start(ground.copy())
    ground.until(one, lambda found: found.step == 1, "10 %")
    other = ground.start(ground.copy())
    ground.until(one, _rolled_back, "the rollback of the second")
    ground.until(other, lambda found: found.step == 1, "10 % of the third")
    ground.wish(other, "rollback")
    return ground.until(other, _rolled_back, "the rollback of the third")


def never_ready(ground: Ground) -> Rollout:
    return ground.until(ground.start(ground.copy(broken=True)), _rolled_back, "the rollback")


def back_at_full(ground: Ground) -> Rollout:
    """It turns bad when it has all of the traffic."""
    version = ground.copy()
    one = ground.start(version)
    ground.until(one, lambda found: found.step == 3, "100 %")
    with ground.fault(version, Fault(error_rate=0.5)):
        return ground.until(one, _rolled_back, "the rollback")


CASES: dict[str, Callable[[Ground], Rollout]] = {
    "promotion": promotion,
    "bad_from_the_start": bad_from_the_start,
    "bad_at_half": bad_at_half,
    "cancelled": cancelled,
    "cancelled_and_restarted": cancelled_and_restarted,
    "third_version": third_version,
    "never_ready": never_ready,
    "back_at_full": back_at_full,
}
