"""Rollouts: what is brought in front of users step by step, and every decision about it with its evidence."""

from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    op.execute("""
    CREATE TABLE rollouts (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        model text NOT NULL,
        version text NOT NULL,                    -- the canary
        champion text NOT NULL,                   -- whom it is compared with
        bundle_key text NOT NULL,                 -- of the canary
        plan jsonb NOT NULL,                      -- steps and guardrails, as they were asked for
        state text NOT NULL CHECK (state IN ('starting', 'running', 'paused', 'promoted', 'rolled_back')),
        step integer NOT NULL DEFAULT -1,         -- -1: its replicas are started
        wish text CHECK (wish IN ('promote', 'pause', 'resume', 'rollback')),
        wished_by text,
        verdict jsonb NOT NULL DEFAULT '{}',      -- the last one
        evidence json,                            -- serve.canary.evidence, as of `cursor`; jsonb would change its order
        cursor bigint NOT NULL DEFAULT 0,         -- how far the ledger was read
        aliases_wait boolean NOT NULL DEFAULT false,  -- the registry has not been told yet how it ended
        started_by text NOT NULL,
        started_at timestamptz NOT NULL DEFAULT now(),
        ended_at timestamptz
    );
    CREATE UNIQUE INDEX rollouts_one_at_a_time ON rollouts (model) WHERE ended_at IS NULL;
    CREATE TABLE rollout_events (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        rollout_id bigint NOT NULL REFERENCES rollouts (id),
        at timestamptz NOT NULL DEFAULT now(),
        actor text NOT NULL,                      -- the controller, a job, or the id of an API key
        action text NOT NULL,
        why text NOT NULL,
        weights jsonb NOT NULL,                   -- after it
        evidence jsonb NOT NULL                   -- the verdict that it follows from
    );
    CREATE INDEX rollout_events_of_one ON rollout_events (rollout_id, id);
    CREATE TRIGGER rollout_events_are_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON rollout_events
        FOR EACH STATEMENT EXECUTE FUNCTION audit_is_append_only();
    """)
