"""PostgreSQL: connections and migrations. The schema is `cluster/migrations`, applied by Alembic.

Connections come in autocommit mode; a transaction is `with connection.transaction():`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psycopg
from psycopg.rows import DictRow, dict_row
from psycopg.types.json import Jsonb

MIGRATIONS = Path(__file__).parent / "migrations"


def connect(database_url: str, *, connect_timeout_s: int = 10) -> psycopg.Connection[DictRow]:
    """Open one connection whose rows are dictionaries.

    Raises:
        psycopg.OperationalError: the server does not answer or refuses the credentials.
    """
    return psycopg.connect(
        database_url, autocommit=True, row_factory=dict_row, connect_timeout=connect_timeout_s
    )


def audit(
    connection: psycopg.Connection[DictRow],
    *,
    actor: str,
    action: str,
    subject: str,
    detail: Mapping[str, Any],
) -> None:
    """Add a row to the audit table, which nothing changes or removes: no identity of a patient belongs there."""
    connection.execute(
        "INSERT INTO audit (actor, action, subject, detail) VALUES (%s, %s, %s, %s)",
        [actor, action, subject, Jsonb(detail)],
    )


def migrate(database_url: str) -> None:
    """Bring the schema to the newest migration; safe to repeat, also from two processes at once."""
    import alembic.command  # not with every connection: most processes migrate nothing
    import alembic.config

    config = alembic.config.Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["database_url"] = database_url
    alembic.command.upgrade(config, "head")
