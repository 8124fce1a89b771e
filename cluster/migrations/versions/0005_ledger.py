"""Requests that nobody answered, and both kinds of request in the order in which their transactions ended."""

from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.execute("""
    CREATE TABLE failed_requests (
        id uuid PRIMARY KEY,                      -- of this failure; no prediction has it
        created_at timestamptz NOT NULL,
        client_key_id text NOT NULL REFERENCES api_keys (key_id),
        request_id text NOT NULL,
        patient_pseudonym text,
        assignment jsonb NOT NULL,                -- as in predictions
        attempts jsonb NOT NULL,
        model text NOT NULL,
        committed_by xid8 NOT NULL DEFAULT pg_current_xact_id()
    );
    CREATE INDEX failed_requests_in_order ON failed_requests (committed_by);
    ALTER TABLE predictions ADD COLUMN committed_by xid8 NOT NULL DEFAULT pg_current_xact_id();
    CREATE INDEX predictions_in_order ON predictions (committed_by);
    """)
