"""PostgreSQL: connections and migrations. The schema is `cluster/migrations`, applied by Alembic.

Connections come in autocommit mode; a transaction is `with connection.transaction():`.
"""

from pathlib import Path

import psycopg
from psycopg.rows import DictRow, dict_row

MIGRATIONS = Path(__file__).parent / "migrations"


def connect(database_url: str, *, connect_timeout_s: int = 10) -> psycopg.Connection[DictRow]:
    """Open one connection whose rows are dictionaries.

    Raises:
        psycopg.OperationalError: the server does not answer or refuses the credentials.
    """
    return psycopg.connect(
        database_url, autocommit=True, row_factory=dict_row, connect_timeout=connect_timeout_s
    )


def migrate(database_url: str) -> None:
    """Bring the schema to the newest migration; safe to repeat, also from two processes at once."""
    import alembic.command  # not with every connection: most processes migrate nothing
    import alembic.config

    config = alembic.config.Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["database_url"] = database_url
    alembic.command.upgrade(config, "head")
