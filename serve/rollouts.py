"""Rollouts in PostgreSQL: begun, wished about and looked at by operators; carried out by `serve.controller` alone.

A rollout and the routes change in one transaction, each change with an event that nobody can change after. A model has
one rollout at a time: a further version takes the place of one that is under way, which is rolled back.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from psycopg import Connection
from psycopg.rows import DictRow
from psycopg.types.json import Json, Jsonb

from cluster.expected import ExpectedError
from serve import desired, ledger, routing
from serve.rollout import AT_ONCE, Plan, Rollout, Wish
from serve.routing import Routes

COLUMNS = (
    "id, model, version, champion, bundle_key, plan, state, step, wish, wished_by, verdict, evidence, cursor, "
    "aliases_wait, started_by, started_at, ended_at"
)


RETRAIN_COOLDOWN_HOURS = 24
"""After a wish for training anew no other is made for so long: the first one has to have an effect."""


class RolloutError(ExpectedError):
    """What is asked for cannot be; the message says what can."""


class NoRolloutError(RolloutError):
    """There is no such rollout."""


def get(connection: Connection[DictRow], rollout_id: int) -> Rollout:
    """Raises NoRolloutError."""
    row = connection.execute(f"SELECT {COLUMNS} FROM rollouts WHERE id = %s", [rollout_id]).fetchone()
    if row is None:
        raise NoRolloutError(f"there is no rollout {rollout_id}")
    return Rollout.from_row(row)


def under_way(connection: Connection[DictRow], model: str) -> Rollout | None:
    row = connection.execute(
        f"SELECT {COLUMNS} FROM rollouts WHERE model = %s AND ended_at IS NULL", [model]
    ).fetchone()
    return None if row is None else Rollout.from_row(row)


def active(connection: Connection[DictRow]) -> list[Rollout]:
    """All that are under way."""
    return _some(connection, "ended_at IS NULL")


def ended(connection: Connection[DictRow]) -> list[Rollout]:
    """Those that are over, and whose end the registry was not told yet."""
    return _some(connection, "aliases_wait")


def _some(connection: Connection[DictRow], which: str) -> list[Rollout]:
    rows = connection.execute(f"SELECT {COLUMNS} FROM rollouts WHERE {which} ORDER BY id").fetchall()
    return [Rollout.from_row(row) for row in rows]


def newest(connection: Connection[DictRow], most: int = 20) -> list[Rollout]:
    rows = connection.execute(f"SELECT {COLUMNS} FROM rollouts ORDER BY id DESC LIMIT %s", [most]).fetchall()
    return [Rollout.from_row(row) for row in rows]


def events(connection: Connection[DictRow], rollout_id: int) -> list[DictRow]:
    """What was decided, by whom and why, in order."""
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
        routes = desired.read(connection).get(model)
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
                ledger.now(connection),
                actor,
            ],
        ).fetchone()
        assert row is not None
        rollout = Rollout.from_row(row)

        def changed(routes: Routes) -> Routes:
            return routing.resalt(routing.add(routes, version, bundle_key), str(rollout.id))

        _event(connection, rollout, changed, actor=actor, action="start", why="asked for")
    return rollout


def wish(connection: Connection[DictRow], rollout_id: int, wanted: Wish, *, actor: str) -> Rollout:
    """Leave a wish with the controller, which carries it out within a second.

    A rollout that is over can only be rolled back when its version is the champion now: that is a rollout of its own,
    at once, to the champion before; it is what is returned then.
    Raises:
        NoRolloutError, RolloutError: it is over, or in a state in which this means nothing.
    """
    with connection.transaction():
        connection.execute("SELECT 1 FROM rollouts WHERE id = %s FOR UPDATE", [rollout_id])
        rollout = get(connection, rollout_id)
        if rollout.ended_at is not None:
            if wanted != "rollback":
                raise RolloutError(f"rollout {rollout_id} is over: {rollout.state}")
            return _back(connection, rollout, actor=actor)
        if wanted == "resume" and rollout.state != "paused":
            raise RolloutError(f"rollout {rollout_id} is not paused, it is {rollout.state}")
        if wanted in ("promote", "pause") and rollout.state == "starting":
            raise RolloutError(f"rollout {rollout_id} is still starting its replicas")
        connection.execute(
            "UPDATE rollouts SET wish = %s, wished_by = %s WHERE id = %s", [wanted, actor, rollout_id]
        )
    return get(connection, rollout_id)


def _back(connection: Connection[DictRow], rollout: Rollout, *, actor: str) -> Rollout:
    champion = desired.read(connection)[rollout.model].champion.version
    if rollout.state != "promoted" or champion != rollout.version:
        raise RolloutError(
            f"rollout {rollout.id} is over: {rollout.state}, and the champion is version {champion}"
        )
    row = connection.execute(
        "SELECT routes->'targets' AS targets FROM serving_routes WHERE model = %s", [rollout.model]
    ).fetchone()
    assert row is not None
    keys = {one["version"]: one["bundle_key"] for one in row["targets"]}
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
        promised: whether the evidence asked for it, and not a person.
    """
    share = rollout.steps[step].share

    def changed(routes: Routes) -> Routes:
        return routing.set_mirror(
            routing.set_weights(routes, {rollout.version: share}), rollout.version, mirror
        )

    with connection.transaction():
        _event(
            connection, rollout, changed, actor=actor, action="step" if promised else "step_by_hand", why=why
        )
        connection.execute(
            "UPDATE rollouts SET step = %s, state = CASE state WHEN 'starting' THEN 'running' ELSE state END, "
            "wish = NULL, wished_by = NULL WHERE id = %s",
            [step, rollout.id],
        )


def promote(connection: Connection[DictRow], rollout: Rollout, *, actor: str, why: str) -> None:
    """The canary becomes the champion; the one before stays warm."""
    with connection.transaction():
        _event(
            connection,
            rollout,
            partial(routing.promote, version=rollout.version),
            actor=actor,
            action="promote",
            why=why,
        )
        _end(connection, rollout, "promoted")


def roll_back(connection: Connection[DictRow], rollout: Rollout, *, actor: str, why: str) -> None:
    """All keys of the canary go to the champion, in this transaction; its replicas end later (`forget`)."""

    def changed(routes: Routes) -> Routes:
        return routing.drain(routes, rollout.version)

    with connection.transaction():
        _event(connection, rollout, changed, actor=actor, action="roll_back", why=why)
        _end(connection, rollout, "rolled_back")


def forget(connection: Connection[DictRow]) -> None:
    """Take canaries that no rollout wants any more out of the routes, so that their replicas end.

    By what the routes are and not by what has happened, so that none is left behind, whoever died in between.
    """
    for model, routes in desired.read(connection).items():
        for version in [one.version for one in routes.targets if one.role == "canary" and not one.spans]:
            changed = partial(_without, connection, version)
            desired.change(connection, model, version, changed, actor="controller", action="end_replicas")


def _without(connection: Connection[DictRow], version: str, routes: Routes) -> Routes:
    return routing.remove(routes, version) if is_left_over(connection, routes, version) else routes


def is_left_over(connection: Connection[DictRow], routes: Routes, version: str) -> bool:
    """Whether a version is a canary without keys that no rollout wants any more.

    Asked behind the lock of the routes, which who starts a rollout takes too.
    """
    wanted = under_way(connection, routes.model)
    if wanted is not None and wanted.version == version:
        return False
    return any(one.version == version and one.role == "canary" and not one.spans for one in routes.targets)


def set_state(connection: Connection[DictRow], rollout: Rollout, state: str, *, actor: str, why: str) -> None:
    """Pause or resume."""
    with connection.transaction():
        action = "pause" if state == "paused" else "resume"
        _event(connection, rollout, lambda routes: routes, actor=actor, action=action, why=why)
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
    """What was learned up to `cursor`; a controller that dies goes on from here."""
    connection.execute(
        "UPDATE rollouts SET verdict = %s, evidence = %s, cursor = %s WHERE id = %s",
        [Jsonb(verdict), Json(evidence), cursor, rollout.id],
    )


def note(connection: Connection[DictRow], rollout: Rollout, *, action: str, why: str) -> None:
    """An event that changes nothing, such as an alert."""
    _event(connection, rollout, lambda routes: routes, actor="controller", action=action, why=why)


def wish_retraining(connection: Connection[DictRow], rollout: Rollout, *, why: str) -> bool:
    """Ask for one training of a model whose input has drifted, with an event, unless one was asked for lately.

    Whoever schedules jobs takes the row of `retraining_wishes`; serving starts none.
    Returns:
        whether it was asked for now.
    """
    with connection.transaction():
        connection.execute("LOCK TABLE retraining_wishes IN EXCLUSIVE MODE")
        row = connection.execute(
            "INSERT INTO retraining_wishes (model, rollout_id, why) SELECT %(model)s, %(id)s, %(why)s "
            "WHERE NOT EXISTS (SELECT 1 FROM retraining_wishes "
            "WHERE model = %(model)s AND wished_at > now() - make_interval(hours => %(hours)s)) RETURNING id",
            {"model": rollout.model, "id": rollout.id, "why": why, "hours": RETRAIN_COOLDOWN_HOURS},
        ).fetchone()
        if row is not None:
            note(connection, rollout, action="retrain_wanted", why=why)
    return row is not None


def aliases_told(connection: Connection[DictRow], rollout: Rollout) -> None:
    connection.execute("UPDATE rollouts SET aliases_wait = false WHERE id = %s", [rollout.id])


def _end(connection: Connection[DictRow], rollout: Rollout, state: str) -> None:
    connection.execute(
        "UPDATE rollouts SET state = %s, ended_at = now(), aliases_wait = true, wish = NULL, wished_by = NULL "
        "WHERE id = %s",
        [state, rollout.id],
    )


def _event(
    connection: Connection[DictRow],
    rollout: Rollout,
    changed: Callable[[Routes], Routes],
    *,
    actor: str,
    action: str,
    why: str,
) -> None:
    detail = {"rollout": rollout.id, "why": why}
    with connection.transaction():
        routes = desired.change(
            connection,
            rollout.model,
            rollout.version,
            changed,
            actor=actor,
            action=f"rollout_{action}",
            detail=detail,
        )
        connection.execute(
            "INSERT INTO rollout_events (rollout_id, actor, action, why, weights, evidence) "
            "VALUES (%s, %s, %s, %s, %s, (SELECT verdict FROM rollouts WHERE id = %s))",
            [rollout.id, actor, action, why, Jsonb(routes.weights), rollout.id],
        )
