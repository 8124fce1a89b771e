"""Attempts of language models at explanations, in the order of the ledger; and wishes for training anew."""

from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    op.execute("""
    CREATE TABLE explained_requests (
        id uuid PRIMARY KEY,                      -- of this attempt
        created_at timestamptz NOT NULL,
        prediction_id uuid NOT NULL,              -- what was to be explained; it may still wait in a journal
        model text NOT NULL,
        patient_pseudonym text,
        assignment jsonb NOT NULL,                -- as in predictions
        attempts jsonb NOT NULL,                  -- one; the template stands in for a model that fails
        committed_by xid8 NOT NULL DEFAULT pg_current_xact_id()
    );
    CREATE INDEX explained_requests_in_order ON explained_requests (committed_by);
    CREATE TABLE retraining_wishes (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        model text NOT NULL,
        rollout_id bigint REFERENCES rollouts (id),
        wished_at timestamptz NOT NULL DEFAULT now(),
        why text NOT NULL,
        taken_at timestamptz,                     -- by whoever starts the job, which is one job a wish
        taken_by text
    );
    CREATE INDEX retraining_wishes_of_a_model ON retraining_wishes (model, wished_at);
    """)
