"""Faults that operators inject on game days: a version that errs, is slow, or whose process dies.

Allowed in development and staging only. Stored in PostgreSQL, audited, and read by front doors as routes are
(`serve.front_door.serving_snapshot`); `serve.front_door.attempts` applies them, so guardrails and rollbacks are
practised on the real paths.
"""

import random
from collections.abc import Callable
from dataclasses import asdict, dataclass

from psycopg import Connection
from psycopg.rows import DictRow
from psycopg.types.json import Jsonb

from cluster.database import audit
from serve.routing import desired_state

READ = "SELECT version, fault FROM serving_faults WHERE model = %s"


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What is injected into requests to one version."""

    error_rate: float = 0.0
    """Share of requests that fail as if the model had raised, 0 to 1."""
    delay_ms: float = 0.0
    """Added to each answer, milliseconds."""
    crash: bool = False
    """Whether the replica that is asked dies, each time."""

    def __post_init__(self) -> None:
        if not 0 <= self.error_rate <= 1:
            raise ValueError(f"error_rate is {self.error_rate}, not between 0 and 1")
        if not 0 <= self.delay_ms <= 60_000:
            raise ValueError(f"delay_ms is {self.delay_ms}, not between 0 and 60000")

    def errs(self, draw: Callable[[], float] = random.random) -> bool:
        """Draw whether this request fails."""
        return draw() < self.error_rate


def put(connection: Connection[DictRow], model: str, version: str, fault: Fault, *, actor: str) -> None:
    """Inject a fault, replacing the version's previous one."""
    with connection.transaction():
        connection.execute(
            "INSERT INTO serving_faults (model, version, fault) VALUES (%s, %s, %s) "
            "ON CONFLICT (model, version) DO UPDATE SET fault = excluded.fault",
            [model, version, Jsonb(asdict(fault))],
        )
        _audit(connection, actor, "put_fault", f"{model}/{version}", asdict(fault))


def clear(connection: Connection[DictRow], *, actor: str) -> int:
    """End all faults; return how many there were."""
    with connection.transaction():
        ended = connection.execute("DELETE FROM serving_faults").rowcount
        if ended:
            _audit(connection, actor, "clear_faults", "all", {"ended": ended})
    return ended


def _audit(
    connection: Connection[DictRow], actor: str, action: str, subject: str, detail: dict[str, object]
) -> None:
    audit(connection, actor=actor, action=action, subject=subject, detail=detail)
    connection.execute("SELECT pg_notify(%s, %s)", [desired_state.CHANNEL, subject])
