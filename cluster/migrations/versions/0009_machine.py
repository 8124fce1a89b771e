"""What a site wants otherwise than the embedded platform's replicas and resources."""

from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    op.execute("""
    CREATE TABLE serving_machine (
        single boolean PRIMARY KEY DEFAULT true CHECK (single),
        machine jsonb NOT NULL                    -- serve.control.resources
    );
    """)
