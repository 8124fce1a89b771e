"""Carries rollouts out: reads the ledger, decides, moves keys; replicas, registry and alerts follow.

One leader, behind an advisory lock; all that it knows is in PostgreSQL, so another one goes on where it died. What
must be fast waits for nothing: a rollback is one transaction that the front doors hear of at once
(`serve.front_door.serving_snapshot`), while replicas, registry and alerts follow in threads of their own
(`serve.control.background_sync`).
"""

import logging
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Protocol

import httpx
import psycopg
from psycopg import Connection
from psycopg.rows import DictRow

from cluster.database import connect
from cluster.expected import ExpectedError
from cluster.settings import Settings
from serve.canary.evidence import Evidence
from serve.canary.verdict import Verdict, decide
from serve.control import rollout_events, rollout_store
from serve.control.plan import STARTING, Rollout, mirror_of, observations, pairs
from serve.ledger import reader
from serve.routing import desired_state
from serve.routing.routes import app_name

LOCK = 7_262_003
"""PostgreSQL advisory lock of the leader; any constant of ours will do."""
TICK_S = 0.5
AWAY_S = 2.0
"""Pause after an error of a service."""
REFUSED = ("DEPLOY_FAILED", "UNHEALTHY")
NAME = "controller"

logger = logging.getLogger(__name__)


class ServingBackend(Protocol):
    """The replicas under the routes."""

    def statuses(self) -> Mapping[str, str]:
        """Return the status of each application, in Ray Serve's words."""
        ...

    def wake(self) -> None:
        """Apply changed routes to applications and registry. Returns at once."""
        ...


@dataclass(kw_only=True)
class ActiveRollout:
    """What the leader has in memory of a rollout that is under way."""

    evidence: Evidence
    cursor: int


class Controller:
    def __init__(self, settings: Settings, backend: ServingBackend) -> None:
        self._settings = settings
        self._backend = backend
        self._active: dict[int, ActiveRollout] = {}
        self._revisions: dict[str, int] = {}

    def run(self, stop: threading.Event) -> None:
        """Lead, or wait to lead, until `stop`."""
        while not stop.is_set():
            try:
                with connect(self._settings.database_url) as connection:
                    if self._leads(connection, stop):
                        self._active.clear()
                        while not stop.is_set():
                            self.tick(connection)
                            stop.wait(TICK_S)
            except (psycopg.OperationalError, httpx.HTTPError, ExpectedError) as error:
                logger.warning("rollouts wait: %s: %s", type(error).__name__, error)
                stop.wait(AWAY_S)

    def _leads(self, connection: Connection[DictRow], stop: threading.Event) -> bool:
        while not stop.is_set():
            row = connection.execute("SELECT pg_try_advisory_lock(%s) AS got", [LOCK]).fetchone()
            if row is not None and row["got"]:
                return True
            stop.wait(1.0)
        return False

    def tick(self, connection: Connection[DictRow]) -> None:
        """Look at everything once."""
        under_way = rollout_store.active(connection)
        ids = {rollout.id for rollout in under_way}
        self._active = {key: active for key, active in self._active.items() if key in ids}
        for rollout in under_way:
            try:
                self._carry_on(connection, rollout)
            except ValueError as error:
                # its evidence or its steps are of no use: the others must not wait for it
                rollout_store.roll_back(connection, rollout, actor=NAME, why=f"it cannot go on: {error}")
        routes = desired_state.read(connection)
        revisions = {model: live.revision for model, live in routes.items()}
        if revisions != self._revisions:
            self._revisions = revisions
            self._backend.wake()

    def _carry_on(self, connection: Connection[DictRow], rollout: Rollout) -> None:
        if rollout.wish == "rollback":
            rollout_store.roll_back(connection, rollout, actor=str(rollout.wished_by), why="asked for")
        elif rollout.step == STARTING:
            self._start(connection, rollout)
        else:
            self._judge(connection, rollout)

    # ---- starting

    def _start(self, connection: Connection[DictRow], rollout: Rollout) -> None:
        status = self._backend.statuses().get(app_name(rollout.model, rollout.version), "NOT_STARTED")
        waited_s = time.time() - rollout.started_at.timestamp()
        if status == "RUNNING":
            self._enter(connection, rollout, 0, why="its replicas are ready", actor=NAME)
        elif status in REFUSED:
            why = f"its replicas do not start: {status}"
            rollout_store.roll_back(connection, rollout, actor=NAME, why=why)
        elif waited_s > rollout.plan.ready_s:
            why = f"its replicas were not ready after {rollout.plan.ready_s:.0f} s: {status}"
            rollout_store.roll_back(connection, rollout, actor=NAME, why=why)

    # ---- judging

    def _judge(self, connection: Connection[DictRow], rollout: Rollout) -> None:
        active = self._active_rollout(rollout)
        self._read(connection, rollout, active)
        verdict = decide(active.evidence, rollout.steps[rollout.step], time.time())
        with connection.transaction():
            rollout_store.keep(
                connection,
                rollout,
                verdict={**asdict(verdict), "step": rollout.step},
                evidence=active.evidence.as_dict(),
                cursor=active.cursor,
            )
            self._act(connection, rollout, verdict)

    def _act(self, connection: Connection[DictRow], rollout: Rollout, verdict: Verdict) -> None:
        command, actor = rollout.wish, str(rollout.wished_by)
        if verdict.action == "roll_back":
            rollout_store.roll_back(connection, rollout, actor=NAME, why=verdict.why)
        elif command == "promote":
            self._next(connection, rollout, why="asked for", actor=actor)
        elif command is None and verdict.action == "promote" and rollout.state == "running":
            self._next(connection, rollout, why=verdict.why, actor=NAME)
        else:
            if command is not None:
                state = "paused" if command == "pause" else "running"
                rollout_store.set_state(connection, rollout, state, actor=actor, why="asked for")
            if verdict.alert and verdict.action != rollout.verdict.get("action"):
                rollout_events.note(connection, rollout, action=verdict.action, why=verdict.why)
        if verdict.retrain and not rollout.verdict.get("retrain"):
            rollout_events.request_retraining(connection, rollout, why=verdict.why)

    def _next(self, connection: Connection[DictRow], rollout: Rollout, *, why: str, actor: str) -> None:
        if rollout.step + 1 < len(rollout.steps):
            self._enter(connection, rollout, rollout.step + 1, why=why, actor=actor)
        else:
            rollout_store.promote(connection, rollout, actor=actor, why=why)

    def _enter(
        self, connection: Connection[DictRow], rollout: Rollout, step: int, *, why: str, actor: str
    ) -> None:
        now = time.time()
        active = self._active_rollout(rollout)
        active.evidence.enter(rollout.steps[step], number=step + 1, at=now)
        with connection.transaction():
            rollout_store.advance(
                connection,
                rollout,
                step=step,
                mirror=mirror_of(rollout.plan, rollout.steps[step]),
                why=why,
                actor=actor,
                promised=actor == NAME,
            )
            rollout_store.keep(
                connection,
                rollout,
                verdict={**rollout.verdict, "step": step},
                evidence=active.evidence.as_dict(),
                cursor=active.cursor,
            )

    def _active_rollout(self, rollout: Rollout) -> ActiveRollout:
        """Return what is known of a rollout: from memory, or from where the controller before left it."""
        if rollout.id not in self._active:
            guardrails = rollout.plan.guardrails
            evidence = (
                Evidence(guardrails, started_at=time.time())
                if rollout.evidence is None
                else Evidence.from_dict(rollout.evidence, guardrails)
            )
            self._active[rollout.id] = ActiveRollout(evidence=evidence, cursor=rollout.cursor)
        return self._active[rollout.id]

    def _read(self, connection: Connection[DictRow], rollout: Rollout, active: ActiveRollout) -> None:
        """Take what the ledger has since the last look."""
        since = active.cursor
        rows, until = reader.read_since(connection, since)
        mirrored = reader.read_mirrored(connection, since, until)
        active.evidence.observe(*observations(rollout, rows))
        active.evidence.observe(*pairs(rollout, mirrored))
        active.cursor = until
