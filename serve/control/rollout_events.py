"""Events of rollouts in PostgreSQL: each decision with its routes and evidence, which nothing can change afterwards.

From them follow the alerts that operators get (`serve.control.background_sync` sends them) and the requests for
retraining.
"""

from collections.abc import Callable
from typing import Any

from psycopg import Connection
from psycopg.rows import DictRow
from psycopg.types.json import Jsonb

from serve.control.plan import Rollout
from serve.routing import desired_state
from serve.routing.routes import Routes

RETRAIN_COOLDOWN_HOURS = 24
"""After a request for retraining none follows for so long: the first one has to have an effect."""
ALERTING = ("freeze", "hold", "roll_back")
"""Actions of which operators are told."""
STALE_HOURS = 1
"""An event as old as that is no longer worth an alert."""
AGAIN_MINUTES = 2
"""An alert whose delivery is unknown after this long is sent again: its sender has ended."""


def record(
    connection: Connection[DictRow],
    rollout: Rollout,
    changed: Callable[[Routes], Routes],
    *,
    actor: str,
    action: str,
    why: str,
) -> None:
    """Change the routes and append the event, in one transaction."""
    detail = {"rollout": rollout.id, "why": why}
    with connection.transaction():
        routes = desired_state.change(
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


def note(connection: Connection[DictRow], rollout: Rollout, *, action: str, why: str) -> None:
    """Append an event that changes no routes."""
    record(connection, rollout, lambda routes: routes, actor="controller", action=action, why=why)


def request_retraining(connection: Connection[DictRow], rollout: Rollout, *, why: str) -> bool:
    """Ask for one training of a model whose input has drifted, with an event, unless there was a request lately.

    A scheduler of jobs takes the row of `retraining_wishes`; serving starts none.
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


def claim_alerts(connection: Connection[DictRow]) -> list[DictRow]:
    """Take the events that an alert is due for, so that no other process sends it.

    Returns:
        event_id, at, actor, action, why, weights; rollout_id, model, version, champion, step.
    """
    return connection.execute(
        "WITH due AS (SELECT events.id FROM rollout_events AS events "
        "LEFT JOIN rollout_alerts AS alerts ON alerts.event_id = events.id "
        "WHERE events.action = ANY(%(actions)s) AND events.at > now() - make_interval(hours => %(stale)s) "
        "AND (alerts.event_id IS NULL OR (alerts.delivery IS NULL "
        "AND alerts.claimed_at < now() - make_interval(mins => %(again)s)))), "
        "claimed AS (INSERT INTO rollout_alerts AS alerts (event_id) SELECT id FROM due "
        "ON CONFLICT (event_id) DO UPDATE SET claimed_at = now() WHERE alerts.delivery IS NULL "
        "AND alerts.claimed_at < now() - make_interval(mins => %(again)s) RETURNING event_id) "
        "SELECT events.id AS event_id, events.at, events.actor, events.action, events.why, events.weights, "
        "rollouts.id AS rollout_id, rollouts.model, rollouts.version, rollouts.champion, rollouts.step "
        "FROM claimed JOIN rollout_events AS events ON events.id = claimed.event_id "
        "JOIN rollouts ON rollouts.id = events.rollout_id ORDER BY events.id",
        {"actions": list(ALERTING), "stale": STALE_HOURS, "again": AGAIN_MINUTES},
    ).fetchall()


def alert_sent(connection: Connection[DictRow], event_id: int, delivery: str) -> None:
    """Note what became of an alert; it is not sent again."""
    connection.execute("UPDATE rollout_alerts SET delivery = %s WHERE event_id = %s", [delivery, event_id])


def alert_details(event: DictRow) -> dict[str, Any]:
    """Return what an alert says of an event; no patient data."""
    return {
        "rollout": event["rollout_id"],
        "model": event["model"],
        "version": event["version"],
        "champion": event["champion"],
        "step": event["step"] + 1,
        "weights": event["weights"],
        "actor": event["actor"],
        "why": event["why"],
        "decided_at": event["at"].isoformat(timespec="seconds"),
    }
