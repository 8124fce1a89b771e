"""Rollouts in PostgreSQL: operators begin them, leave commands and look; `serve.control.controller` alone carries
them out.

A rollout and the routes change in one transaction, each change with an event (`serve.control.rollout_events`). A
model has one rollout at a time: a further version takes the place of one that is under way, which is rolled back.
"""

from functools import partial
from typing import Any

from psycopg import Connection
from psycopg.rows import DictRow
from psycopg.types.json import Json, Jsonb

from cluster.expected import ExpectedError
from serve.control.plan import AT_ONCE, OperatorCommand, Plan, Rollout
from serve.control.rollout_events import record
from serve.ledger import reader
from serve.routing import desired_state
from serve.routing import routes as routing
from serve.routing.routes import Routes

COLUMNS = (
    "id, model, version, champion, bundle_key, plan, state, step, wish, wished_by, verdict, evidence, cursor, "
    "aliases_wait, started_by, started_at, ended_at"
)


class RolloutError(ExpectedError):
    """A request that cannot be carried out; the message says what can."""


class NoRolloutError(RolloutError):
    """There is no such rollout."""


def get(connection: Connection[DictRow], rollout_id: int) -> Rollout:
    """Return the rollout; raises NoRolloutError."""
    rollouts = _select(connection, "WHERE id = %s", rollout_id)
    if not rollouts:
        raise NoRolloutError(f"there is no rollout {rollout_id}")
    return rollouts[0]


def under_way(connection: Connection[DictRow], model: str) -> Rollout | None:
    return next(iter(_select(connection, "WHERE model = %s AND ended_at IS NULL", model)), None)


def active(connection: Connection[DictRow]) -> list[Rollout]:
    """Return all that are under way."""
    return _select(connection, "WHERE ended_at IS NULL ORDER BY id")


def ended(connection: Connection[DictRow]) -> list[Rollout]:
    """Return those that are over, and of which the registry does not know yet."""
    return _select(connection, "WHERE aliases_wait ORDER BY id")


def newest(connection: Connection[DictRow], most: int = 20) -> list[Rollout]:
    return _select(connection, "ORDER BY id DESC LIMIT %s", most)


def _select(connection: Connection[DictRow], rest: str, *parameters: object) -> list[Rollout]:
    rows = connection.execute(f"SELECT {COLUMNS} FROM rollouts {rest}", parameters).fetchall()
    return [Rollout.from_row(row) for row in rows]


def events(connection: Connection[DictRow], rollout_id: int) -> list[DictRow]:
    """Return what was decided, by whom and why, in order."""
    return connection.execute(
        "SELECT at, actor, action, why, weights, evidence FROM rollout_events WHERE rollout_id = %s ORDER BY id",
        [rollout_id],
    ).fetchall()


def start(
    connection: Connection[DictRow], *, model: str, version: str, bundle_key: str, plan: Plan, actor: str
) -> Rollout:
    """Begin a rollout: the version is added to the routes, without any weight.

    One that is under way is rolled back, as its version is no longer what is wanted. While the champion has all keys
    they are drawn anew, so that it is not always the same patients who meet new versions.
    Raises:
        RolloutError: the version is the champion, or is being rolled out already.
    """
    with connection.transaction():
        connection.execute("LOCK TABLE rollouts IN EXCLUSIVE MODE")
        before = under_way(connection, model)
        if before is not None and before.version == version:
            raise RolloutError(
                f"version {version} of {model} is being rolled out already, by rollout {before.id}"
            )
        routes = desired_state.read(connection).get(model)
        if routes is None:
            raise RolloutError(f"nothing of {model} is served: run `python -m jobs.deploy` first")
        if routes.champion.version == version:
            raise RolloutError(f"version {version} of {model} is the champion already")
        if before is not None:
            roll_back(connection, before, actor=actor, why=f"version {version} takes its place")
        row = connection.execute(
            f"INSERT INTO rollouts (model, version, champion, bundle_key, plan, state, cursor, started_by) "
            f"VALUES (%s, %s, %s, %s, %s, 'starting', %s, %s) RETURNING {COLUMNS}",
            [
                model,
                version,
                routes.champion.version,
                bundle_key,
                Jsonb(plan.as_dict()),
                reader.now(connection),
                actor,
            ],
        ).fetchone()
        assert row is not None
        rollout = Rollout.from_row(row)

        def changed(routes: Routes) -> Routes:
            return routing.resalt(routing.add(routes, version, bundle_key), str(rollout.id))

        record(connection, rollout, changed, actor=actor, action="start", why="asked for")
    return rollout


def request(
    connection: Connection[DictRow], rollout_id: int, command: OperatorCommand, *, actor: str
) -> Rollout:
    """Leave a command for the controller, which carries it out within a second.

    A rollout that is over can only be rolled back when its version is the champion now: that is a rollout of its own,
    at once, to the champion before; it is what is returned then.
    Raises:
        NoRolloutError, RolloutError: it is over, or in a state in which the command means nothing.
    """
    with connection.transaction():
        connection.execute("SELECT 1 FROM rollouts WHERE id = %s FOR UPDATE", [rollout_id])
        rollout = get(connection, rollout_id)
        if rollout.ended_at is not None:
            if command != "rollback":
                raise RolloutError(f"rollout {rollout_id} is over: {rollout.state}")
            return _start_return(connection, rollout, actor=actor)
        if command == "resume" and rollout.state != "paused":
            raise RolloutError(f"rollout {rollout_id} is not paused, it is {rollout.state}")
        if command in ("promote", "pause") and rollout.state == "starting":
            raise RolloutError(f"rollout {rollout_id} is still starting its replicas")
        connection.execute(
            "UPDATE rollouts SET wish = %s, wished_by = %s WHERE id = %s", [command, actor, rollout_id]
        )
    return get(connection, rollout_id)


def _start_return(connection: Connection[DictRow], rollout: Rollout, *, actor: str) -> Rollout:
    """Start a rollout to the champion before, at once."""
    champion = desired_state.read(connection)[rollout.model].champion.version
    if rollout.state != "promoted" or champion != rollout.version:
        raise RolloutError(
            f"rollout {rollout.id} is over: {rollout.state}, and the champion is version {champion}"
        )
    row = connection.execute(
        "SELECT routes->'targets' AS targets FROM serving_routes WHERE model = %s", [rollout.model]
    ).fetchone()
    assert row is not None
    keys = {target["version"]: target["bundle_key"] for target in row["targets"]}
    if rollout.champion not in keys:
        raise RolloutError(
            f"version {rollout.champion} is no longer kept warm: start a rollout of it, with steps `at_once`"
        )
    plan = Plan(guardrails=rollout.plan.guardrails, steps=AT_ONCE)
    return start(
        connection,
        model=rollout.model,
        version=rollout.champion,
        bundle_key=keys[rollout.champion],
        plan=plan,
        actor=actor,
    )


def advance(
    connection: Connection[DictRow],
    rollout: Rollout,
    *,
    step: int,
    mirror: float,
    why: str,
    actor: str,
    promised: bool,
) -> None:
    """Enter a step: its share of the keys, and of mirrored images.

    Args:
        promised: whether the evidence asks for it, and not a person.
    """
    share = rollout.steps[step].share

    def changed(routes: Routes) -> Routes:
        return routing.set_mirror(
            routing.set_weights(routes, {rollout.version: share}), rollout.version, mirror
        )

    with connection.transaction():
        action = "step" if promised else "step_by_hand"
        record(connection, rollout, changed, actor=actor, action=action, why=why)
        connection.execute(
            "UPDATE rollouts SET step = %s, state = CASE state WHEN 'starting' THEN 'running' ELSE state END, "
            "wish = NULL, wished_by = NULL WHERE id = %s",
            [step, rollout.id],
        )


def promote(connection: Connection[DictRow], rollout: Rollout, *, actor: str, why: str) -> None:
    """Make the canary the champion; the one before stays warm."""
    with connection.transaction():
        changed = partial(routing.promote, version=rollout.version)
        record(connection, rollout, changed, actor=actor, action="promote", why=why)
        _end(connection, rollout, "promoted")


def roll_back(connection: Connection[DictRow], rollout: Rollout, *, actor: str, why: str) -> None:
    """Give all keys of the canary to the champion, in this transaction; its replicas end later."""

    def changed(routes: Routes) -> Routes:
        return routing.drain(routes, rollout.version)

    with connection.transaction():
        record(connection, rollout, changed, actor=actor, action="roll_back", why=why)
        _end(connection, rollout, "rolled_back")


def remove_finished_canaries(connection: Connection[DictRow]) -> None:
    """Take canaries that no rollout wants any more out of the routes, so that their replicas end.

    By what the routes are and not by what has happened, so that none is left behind, whatever died in between.
    """
    for model, routes in desired_state.read(connection).items():
        idle = [target for target in routes.targets if target.role == "canary" and not target.spans]
        for version in [target.version for target in idle]:
            changed = partial(_without, connection, version)
            desired_state.change(
                connection, model, version, changed, actor="controller", action="end_replicas"
            )


def _without(connection: Connection[DictRow], version: str, routes: Routes) -> Routes:
    return routing.remove(routes, version) if is_left_over(connection, routes, version) else routes


def is_left_over(connection: Connection[DictRow], routes: Routes, version: str) -> bool:
    """Tell whether a version is a canary without keys that no rollout wants any more.

    Asked behind the lock of the routes, which the start of a rollout takes too.
    """
    rollout = under_way(connection, routes.model)
    if rollout is not None and rollout.version == version:
        return False
    return any(
        target.version == version and target.role == "canary" and not target.spans
        for target in routes.targets
    )


def set_state(connection: Connection[DictRow], rollout: Rollout, state: str, *, actor: str, why: str) -> None:
    """Pause or resume."""
    with connection.transaction():
        action = "pause" if state == "paused" else "resume"
        record(connection, rollout, lambda routes: routes, actor=actor, action=action, why=why)
        connection.execute(
            "UPDATE rollouts SET state = %s, wish = NULL, wished_by = NULL WHERE id = %s", [state, rollout.id]
        )


def keep(
    connection: Connection[DictRow],
    rollout: Rollout,
    *,
    verdict: dict[str, Any],
    evidence: dict[str, Any],
    cursor: int,
) -> None:
    """Store what was learned up to `cursor`; the next controller goes on from here."""
    connection.execute(
        "UPDATE rollouts SET verdict = %s, evidence = %s, cursor = %s WHERE id = %s",
        [Jsonb(verdict), Json(evidence), cursor, rollout.id],
    )


def aliases_told(connection: Connection[DictRow], rollout: Rollout) -> None:
    """Note that the registry knows how a rollout ended."""
    connection.execute("UPDATE rollouts SET aliases_wait = false WHERE id = %s", [rollout.id])


def _end(connection: Connection[DictRow], rollout: Rollout, state: str) -> None:
    connection.execute(
        "UPDATE rollouts SET state = %s, ended_at = now(), aliases_wait = true, wish = NULL, wished_by = NULL "
        "WHERE id = %s",
        [state, rollout.id],
    )
