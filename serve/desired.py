"""The desired state of serving, owned by PostgreSQL: which versions are live, with which weights.

Jobs write it, one reconciler carries it out; every change leaves an audit row in the same transaction.
"""

from typing import Any

from psycopg import Connection
from psycopg.rows import DictRow
from psycopg.types.json import Jsonb

from serve.routing import Routes, Target


def read(connection: Connection[DictRow]) -> dict[str, Routes]:
    """Routes of each model that is served."""
    rows = connection.execute(
        "SELECT model, version, bundle_key, weight, role FROM serving_versions ORDER BY model, version"
    ).fetchall()
    by_model: dict[str, list[Target]] = {}
    for row in rows:
        target = Target(
            version=row["version"], weight=row["weight"], role=row["role"], bundle_key=row["bundle_key"]
        )
        by_model.setdefault(row["model"], []).append(target)
    return {model: Routes(model=model, targets=tuple(targets)) for model, targets in by_model.items()}


def cut_over(
    connection: Connection[DictRow], *, model: str, version: str, bundle_key: str, actor: str
) -> None:
    """Make one version the champion with all traffic; the one before stays, warm, without traffic.

    Repeating it changes nothing.
    """
    with connection.transaction():
        connection.execute("LOCK TABLE serving_versions IN EXCLUSIVE MODE")
        before = read(connection).get(model)
        if before is not None and before.champion.version == version and len(before.targets) <= 2:
            return
        targets = [Target(version=version, weight=1.0, role="champion", bundle_key=bundle_key)]
        if before is not None and before.champion.version != version:
            champion = before.champion
            targets.append(
                Target(version=champion.version, weight=0.0, role="previous", bundle_key=champion.bundle_key)
            )
        connection.execute("DELETE FROM serving_versions WHERE model = %s", (model,))
        for one in targets:
            connection.execute(
                "INSERT INTO serving_versions (model, version, bundle_key, weight, role) VALUES (%s, %s, %s, %s, %s)",
                (model, one.version, one.bundle_key, one.weight, one.role),
            )
        detail: dict[str, Any] = {
            "before": {} if before is None else {one.version: one.weight for one in before.targets},
            "after": {one.version: one.weight for one in targets},
        }
        connection.execute(
            "INSERT INTO audit (actor, action, subject, detail) VALUES (%s, 'cut_over', %s, %s)",
            (actor, f"{model}/{version}", Jsonb(detail)),
        )
