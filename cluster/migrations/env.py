"""Alembic's entry: run the migrations over psycopg 3, one process at a time."""

import sqlalchemy
from alembic import context

ADVISORY_LOCK = 7_262_001
"""Number of the PostgreSQL advisory lock that keeps two migrations apart; any constant of ours will do."""

url = context.config.attributes["database_url"].replace("postgresql://", "postgresql+psycopg://", 1)
engine = sqlalchemy.create_engine(url, poolclass=sqlalchemy.pool.NullPool)
with engine.connect() as connection:
    context.configure(connection=connection)
    with context.begin_transaction():
        connection.execute(sqlalchemy.text(f"SELECT pg_advisory_xact_lock({ADVISORY_LOCK})"))
        context.run_migrations()
engine.dispose()
