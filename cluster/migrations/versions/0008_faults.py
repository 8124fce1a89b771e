"""Faults of game days, by version."""

from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    op.execute("""
    CREATE TABLE serving_faults (
        model text NOT NULL,
        version text NOT NULL,
        fault jsonb NOT NULL,                     -- serve.routing.fault_injection.Fault
        PRIMARY KEY (model, version)
    );
    """)
