"""The desired state of serving, owned by PostgreSQL: the live versions of each model and their shares.

Each change is one transaction with an audit row, gives the routes a higher revision and notifies the front doors,
which read them here (`serve.front_door.serving_snapshot`). One reconciler applies them to Ray Serve's
applications. Knows neither Ray nor HTTP.
"""

from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

from psycopg import Connection
from psycopg.rows import DictRow
from psycopg.types.json import Jsonb

from cluster.database import audit
from cluster.expected import ExpectedError
from cluster.releases.registry import VIT
from serve.routing.routes import Routes, Target

CHANNEL = "serving_routes"
"""PostgreSQL's notification channel for changed routes."""
READ = "SELECT model, routes FROM serving_routes ORDER BY model"


class NotServedError(ExpectedError):
    """Nothing of this model is served yet."""


def parsed(rows: list[DictRow]) -> dict[str, Routes]:
    """Parse the rows of the query `READ`."""
    return {row["model"]: Routes.from_dict(row["routes"]) for row in rows}


def read(connection: Connection[DictRow]) -> dict[str, Routes]:
    """Read the routes of each served model."""
    return parsed(connection.execute(READ).fetchall())


def front_door(connection: Connection[DictRow]) -> str | None:
    """Return the bundle whose code the front door runs; None before the first deployment."""
    row = connection.execute("SELECT bundle_key FROM serving_front_door").fetchone()
    return None if row is None else row["bundle_key"]


def was_champion(connection: Connection[DictRow], model: str, version: str) -> bool:
    """Return True if the audit shows a version as champion of this platform at any time."""
    return (
        connection.execute(
            "SELECT 1 FROM audit WHERE subject = %s AND action IN ('cut_over', 'rollout_promote') LIMIT 1",
            [f"{model}/{version}"],
        ).fetchone()
        is not None
    )


def machine(connection: Connection[DictRow]) -> dict[str, Any]:
    """Read the site's overrides of `serve/control/resources.yaml`, see `serve.control.resources`."""
    row = connection.execute("SELECT machine FROM serving_machine").fetchone()
    return {} if row is None else row["machine"]


def set_machine(connection: Connection[DictRow], wanted: dict[str, Any], *, actor: str) -> None:
    """Store the site's overrides; they apply at the next reconciliation."""
    with connection.transaction():
        connection.execute(
            "INSERT INTO serving_machine (machine) VALUES (%s) ON CONFLICT (single) "
            "DO UPDATE SET machine = excluded.machine",
            [Jsonb(wanted)],
        )
        audit(connection, actor=actor, action="set_machine", subject="machine", detail=wanted)


def change(
    connection: Connection[DictRow],
    model: str,
    version: str,
    changed: Callable[[Routes], Routes],
    *,
    actor: str,
    action: str,
    detail: dict[str, Any] | None = None,
) -> Routes:
    """Replace a model's routes by `changed(routes)`; return the routes now in force.

    Unchanged routes get no new revision and no audit row. Joins the caller's transaction, if there is one.

    Args:
        version: the changed version, for the audit.

    Raises:
        NotServedError: the model has no routes.
        RoutingError: from `changed`.
    """
    with connection.transaction():
        row = connection.execute(
            "SELECT routes FROM serving_routes WHERE model = %s FOR UPDATE", (model,)
        ).fetchone()
        if row is None:
            raise NotServedError(f"nothing of {model} is served: run `python -m jobs.deploy` first")
        before = Routes.from_dict(row["routes"])
        after = replace(changed(before), revision=before.revision)
        if after == before:
            return before
        return _write(connection, version, before, after, actor=actor, action=action, detail=detail or {})


def cut_over(
    connection: Connection[DictRow], *, model: str, version: str, bundle_key: str, actor: str
) -> None:
    """Make one version the champion with all traffic; the old champion stays warm, without traffic.

    The front door gets the code of the classifier's new champion. Repeating it changes nothing.
    """
    with connection.transaction():
        connection.execute("LOCK TABLE serving_routes IN EXCLUSIVE MODE")
        before = read(connection).get(model)
        if before is None or before.champion.version != version or len(before.targets) > 2:
            champion = Target(version=version, role="champion", bundle_key=bundle_key)
            previous = () if before is None or before.champion.version == version else (before.champion,)
            targets = (champion, *(replace(target, role="previous") for target in previous))
            after = Routes(
                model=model,
                targets=targets,
                salt="" if before is None else before.salt,
                revision=0 if before is None else before.revision,
            )
            _write(connection, version, before, after, actor=actor, action="cut_over", detail={})
        if model == VIT:
            connection.execute(
                "INSERT INTO serving_front_door (bundle_key) VALUES (%s) ON CONFLICT (single) "
                "DO UPDATE SET bundle_key = excluded.bundle_key",
                (bundle_key,),
            )


def _write(
    connection: Connection[DictRow],
    version: str,
    before: Routes | None,
    after: Routes,
    *,
    actor: str,
    action: str,
    detail: dict[str, Any],
) -> Routes:
    after = replace(after, revision=after.revision + 1)
    connection.execute(
        "INSERT INTO serving_routes (model, routes, revision) VALUES (%s, %s, %s) ON CONFLICT (model) DO UPDATE "
        "SET routes = excluded.routes, revision = excluded.revision, updated_at = now()",
        (after.model, Jsonb(asdict(after)), after.revision),
    )
    weights = {"before": {} if before is None else before.weights, "after": after.weights}
    subject = f"{after.model}/{version}"
    audit(connection, actor=actor, action=action, subject=subject, detail={**detail, **weights})
    connection.execute("SELECT pg_notify(%s, %s)", (CHANNEL, after.model))
    return after
