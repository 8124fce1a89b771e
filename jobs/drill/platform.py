"""What a drill does to a platform: copies of its champion, injected faults, kills, a suspended database."""

import contextlib
import json
import os
import random
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from cluster.database import connect
from cluster.embedded.home import Home
from cluster.embedded.process import command_line, marked
from cluster.objects import ObjectStore
from cluster.releases import bundles
from cluster.releases.registry import VIT, Registry
from cluster.settings import Settings
from data.taxonomy import taxonomy
from jobs.drill.clients import Clients
from jobs.runtime.waiting import wait_for
from serve.canary.guardrails import GuardrailConfig
from serve.control import reconciler, rollout_store
from serve.control.plan import Rollout
from serve.control.start import start_rollout
from serve.routing import desired_state, fault_injection
from serve.routing.fault_injection import Fault
from serve.routing.routes import app_name

ACTOR = "jobs.drill"
Step = dict[str, Any]
STEPS: list[Step] = [
    {"share": 0.0, "minutes": 0.1, "pairs": 20, "non_inferior": False},
    {"share": 0.1, "minutes": 0.4, "requests": 20, "non_inferior": False},
    {"share": 0.5, "minutes": 0.4, "requests": 100, "non_inferior": False},
    {"share": 1.0, "minutes": 0.3, "requests": 50, "non_inferior": False},
]
"""Shown, 10, 50, 100 %, in a hurry: a drill is about what happens on the way, not about how much evidence it takes."""
GUARDRAILS = GuardrailConfig(labels=taxonomy().names, promote_p99_ms=5_000, roll_back_p99_ms=5_000)
"""Without a bound on waiting: with processes that are killed all the while it would never allow a promotion."""
KILL_TARGETS = (f"ServeReplica:{VIT}", "ServeReplica:front-door", "ServeReplica:rollout-controller")
"""What Ray calls the processes that are killed in turns."""
CASE_S = 240.0
"""How long a case may take to come to what it waits for."""


class UnexpectedError(Exception):
    """The case did not reach what it is about."""


@dataclass(kw_only=True)
class DrillPlatform:
    """The platform, and copies of its champion."""

    settings: Settings
    store: ObjectStore
    registry: Registry
    draw: random.Random
    clients: Clients | None = None
    """The clients that send requests at the moment."""
    copies: int = 0
    killed: list[str] = field(default_factory=list)
    fault_at: float | None = None
    """When the last fault was injected, in seconds since the epoch."""

    def copy(self, *, broken: bool = False) -> str:
        """Register the champion's weights as a new version; a broken one cannot be loaded."""
        self.copies += 1
        with tempfile.TemporaryDirectory() as folder:
            directory = Path(folder)
            key = self.registry.bundle_key(VIT, self.champion)
            bundles.fetch(self.store, key, directory)
            files: dict[str, bytes | Path] = {
                path.name: path
                for path in directory.iterdir()
                if path.name not in (bundles.COMMIT, bundles.SIGNATURE)
            }
            card = json.loads((directory / "card.json").read_text())
            card["drill"] = f"{time.time():.3f}-{self.copies}"
            if broken:
                card["architecture"]["timm"] = "vit_tiny_patch16_224"
                card["architecture"]["kwargs"] = {"depth": 1}
            files["card.json"] = json.dumps(card, sort_keys=True, indent=1).encode()
            return self.registry.register(
                VIT, bundles.publish(self.store, files), None, {"verdict": "pass", "drill": "yes"}
            )

    @property
    def champion(self) -> str:
        with connect(self.settings.database_url) as connection:
            return desired_state.read(connection)[VIT].champion.version

    def start(self, version: str, steps: Sequence[Step] = STEPS) -> Rollout:
        rollout, _ = start_rollout(
            self.settings, model=VIT, version=version, steps=list(steps), guardrails=GUARDRAILS, actor=ACTOR
        )
        return rollout

    def now(self, rollout: Rollout) -> Rollout:
        with connect(self.settings.database_url) as connection:
            return rollout_store.get(connection, rollout.id)

    def until(self, rollout: Rollout, done: Callable[[Rollout], bool], what: str) -> Rollout:
        """Wait until a rollout is in the state that `done` asks for.

        Raises:
            UnexpectedError: it ended otherwise, or takes too long.
        """

        def late() -> UnexpectedError:
            return UnexpectedError(f"waited {CASE_S:.0f} s for {what}; it is {self.now(rollout).state}")

        def reached() -> Rollout | None:
            current = self.now(rollout)
            if done(current):
                return current
            if current.ended_at is not None:
                raise UnexpectedError(
                    f"waited for {what}, and it was {current.state}: {current.verdict.get('why')}"
                )
            return None

        return wait_for(reached, CASE_S, late, every_s=0.25)

    def wish(self, rollout: Rollout, wanted: Any) -> None:
        with connect(self.settings.database_url) as connection:
            rollout_store.request(connection, rollout.id, wanted, actor=ACTOR)

    def end(self) -> Rollout | None:
        """Roll back what is under way, so that the next case starts from the champion; returns the newest rollout."""
        with connect(self.settings.database_url) as connection:
            left = rollout_store.under_way(connection, VIT)
        if left is not None:
            self.wish(left, "rollback")
            with contextlib.suppress(UnexpectedError):
                self.until(left, rolled_back, "the end")
        with connect(self.settings.database_url) as connection:
            return next(iter(rollout_store.newest(connection, 1)), None)

    @contextmanager
    def fault(self, version: str, fault: Fault) -> Iterator[None]:
        with connect(self.settings.database_url) as connection:
            fault_injection.put(connection, VIT, version, fault, actor=ACTOR)
        self.fault_at = time.time()
        try:
            yield
        finally:
            with connect(self.settings.database_url) as connection:
                fault_injection.clear(connection, actor=ACTOR)

    def replicas(self) -> int:
        """Count the running processes of the champion."""
        return reconciler.replicas(self.settings, app_name(VIT, self.champion))

    @contextmanager
    def silent_database(self) -> Iterator[None]:
        """Suspend PostgreSQL, which is harder than a stopped one: connections are not refused, they hang."""
        frozen = marked(Home.from_env(os.environ).id, "postgresql")
        for process in frozen:
            process.suspend()
        try:
            yield
        finally:
            for process in frozen:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.resume()

    def kill_one(self, nth: int) -> None:
        kind = KILL_TARGETS[nth % len(KILL_TARGETS)]
        targets = [
            process
            for process in marked(Home.from_env(os.environ).id, "ray")
            if kind in command_line(process)
        ]
        if targets:
            chosen = self.draw.choice(targets)
            self.killed.append(command_line(chosen).removeprefix("ray::").split("(")[0].strip())
            with contextlib.suppress(psutil.NoSuchProcess):
                chosen.kill()


def rolled_back(rollout: Rollout) -> bool:
    return rollout.state == "rolled_back"
