"""Carries rollouts out: reads the ledger, asks the verdict, moves keys, brings replicas and the registry after.

One leader, behind an advisory lock; all that it knows is in PostgreSQL, so another one goes on where it died. What must
be fast waits for nothing: a rollback is one transaction that the front doors hear of at once (`serve.board`), while
replicas and registry are brought after by a thread of their own (`serve.housekeeping`).
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
from serve import desired, ledger, rollout, rollouts
from serve.evidence import Evidence
from serve.reconciler import app_name
from serve.rollout import STARTING, Rollout
from serve.verdict import Verdict, verdict

LOCK = 7_262_003
"""PostgreSQL advisory lock of the leader; any constant of ours will do."""
TICK_S = 0.5
AWAY_S = 2.0
"""How long it waits after an error of a service."""
REFUSED = ("DEPLOY_FAILED", "UNHEALTHY")
NAME = "controller"

logger = logging.getLogger(__name__)


class Machine(Protocol):
    """The replicas under the routes."""

    def statuses(self) -> Mapping[str, str]:
        """Of each application, in Ray Serve's words."""
        ...

    def wake(self) -> None:
        """The routes have changed: bring applications and registry after. Returns at once."""
        ...


@dataclass(kw_only=True)
class Watched:
    """What the leader has in memory of a rollout that is under way."""

    evidence: Evidence
    cursor: int


class Controller:
    def __init__(self, settings: Settings, machine: Machine, *, tick_s: float = TICK_S) -> None:
        self._settings = settings
        self._machine = machine
        self._tick_s = tick_s
        self._watched: dict[int, Watched] = {}
        self._revisions: dict[str, int] = {}

    def run(self, stop: threading.Event) -> None:
        """Lead, or wait to lead, until `stop`."""
        while not stop.is_set():
            try:
                with connect(self._settings.database_url) as connection:
                    if self._leads(connection, stop):
                        self._watched.clear()
                        while not stop.is_set():
                            self.tick(connection)
                            stop.wait(self._tick_s)
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
        """One look at everything."""
        under_way = rollouts.active(connection)
        self._watched = {
            key: one for key, one in self._watched.items() if key in {each.id for each in under_way}
        }
        for one in under_way:
            try:
                self._carry_on(connection, one)
            except (
                ValueError
            ) as error:  # its evidence or its steps are of no use: the others must not wait for it
                rollouts.roll_back(connection, one, actor=NAME, why=f"it cannot go on: {error}")
        routes = desired.read(connection)
        revisions = {model: live.revision for model, live in routes.items()}
        if revisions != self._revisions:
            self._revisions = revisions
            self._machine.wake()

    def _carry_on(self, connection: Connection[DictRow], one: Rollout) -> None:
        if one.wish == "rollback":
            rollouts.roll_back(connection, one, actor=str(one.wished_by), why="asked for")
        elif one.step == STARTING:
            self._start(connection, one)
        else:
            self._judge(connection, one)

    # ---- starting

    def _start(self, connection: Connection[DictRow], one: Rollout) -> None:
        status = self._machine.statuses().get(app_name(one.model, one.version), "NOT_STARTED")
        waited_s = time.time() - one.started_at.timestamp()
        if status == "RUNNING":
            self._enter(connection, one, 0, why="its replicas are ready", actor=NAME)
        elif status in REFUSED:
            rollouts.roll_back(connection, one, actor=NAME, why=f"its replicas do not start: {status}")
        elif waited_s > one.plan.ready_s:
            rollouts.roll_back(
                connection,
                one,
                actor=NAME,
                why=f"its replicas were not ready after {one.plan.ready_s:.0f} s: {status}",
            )

    # ---- judging

    def _judge(self, connection: Connection[DictRow], one: Rollout) -> None:
        watched = self._watch(connection, one)
        self._read(connection, one, watched)
        step = one.steps[one.step]
        found = verdict(watched.evidence, step, time.time())
        with connection.transaction():
            rollouts.keep(
                connection,
                one,
                verdict={**asdict(found), "step": one.step},
                evidence=watched.evidence.as_dict(),
                cursor=watched.cursor,
            )
            self._act(connection, one, found)

    def _act(self, connection: Connection[DictRow], one: Rollout, found: Verdict) -> None:
        if found.action == "roll_back":
            rollouts.roll_back(connection, one, actor=NAME, why=found.why)
        elif one.wish == "promote":
            self._next(connection, one, why="asked for", actor=str(one.wished_by))
        elif one.wish in ("pause", "resume"):
            state = "paused" if one.wish == "pause" else "running"
            rollouts.set_state(connection, one, state, actor=str(one.wished_by), why="asked for")
        elif found.action == "promote" and one.state == "running":
            self._next(connection, one, why=found.why, actor=NAME)
        elif found.alert and found.action != one.verdict.get("action"):
            rollouts.note(connection, one, action=found.action, why=found.why)
        if found.retrain and not one.verdict.get("retrain"):
            rollouts.wish_retraining(connection, one, why=found.why)

    def _next(self, connection: Connection[DictRow], one: Rollout, *, why: str, actor: str) -> None:
        if one.step + 1 < len(one.steps):
            self._enter(connection, one, one.step + 1, why=why, actor=actor)
        else:
            rollouts.promote(connection, one, actor=actor, why=why)

    def _enter(
        self, connection: Connection[DictRow], one: Rollout, step: int, *, why: str, actor: str
    ) -> None:
        now = time.time()
        watched = self._watch(connection, one)
        watched.evidence.enter(one.steps[step], number=step + 1, at=now)
        with connection.transaction():
            rollouts.advance(
                connection,
                one,
                step=step,
                mirror=rollout.mirror_of(one.plan, one.steps[step]),
                why=why,
                actor=actor,
                promised=actor == NAME,
            )
            rollouts.keep(
                connection,
                one,
                verdict={**one.verdict, "step": step},
                evidence=watched.evidence.as_dict(),
                cursor=watched.cursor,
            )

    def _watch(self, connection: Connection[DictRow], one: Rollout) -> Watched:
        """What is known of a rollout: from memory, or from where the controller before left it."""
        if one.id not in self._watched:
            guardrails = one.plan.guardrails
            evidence = (
                Evidence(guardrails, started_at=time.time())
                if one.evidence is None
                else Evidence.from_dict(one.evidence, guardrails)
            )
            self._watched[one.id] = Watched(evidence=evidence, cursor=one.cursor)
        return self._watched[one.id]

    def _read(self, connection: Connection[DictRow], one: Rollout, watched: Watched) -> None:
        """Take what the ledger has since the last look."""
        since = watched.cursor
        rows, until = ledger.read_since(connection, since)
        mirrored = ledger.read_mirrored(connection, since, until)
        watched.evidence.observe(*rollout.observations(one, rows))
        watched.evidence.observe(*rollout.pairs(one, mirrored))
        watched.cursor = until
