"""Alerts about rollouts: which events operators were told of, so that each is sent once."""

from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    op.execute("""
    CREATE TABLE rollout_alerts (
        event_id bigint PRIMARY KEY REFERENCES rollout_events (id),
        claimed_at timestamptz NOT NULL DEFAULT now(),  -- when a process began to send it
        delivery text                                   -- what became of it; NULL: it is being sent
    );
    INSERT INTO rollout_alerts (event_id, delivery) SELECT id, 'before there were alerts' FROM rollout_events;
    """)
