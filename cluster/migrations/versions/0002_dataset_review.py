"""Verdicts over dataset versions, reviews of the quarantine, patients that were forgotten."""

from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.execute("""
    ALTER TABLE dataset_versions
        ADD COLUMN accepted boolean,              -- NULL: not validated yet
        ADD COLUMN judged_at timestamptz,
        ADD COLUMN judged_by text;                -- validation, or the person who accepted it in spite of it
    ALTER TABLE quarantine
        ADD COLUMN id bigint GENERATED ALWAYS AS IDENTITY UNIQUE,
        ADD COLUMN sample jsonb,                  -- stage ingest: the row that it would have in samples
        ADD COLUMN pixel_sha256 text;             -- stage etl, conflicting labels: ties those that belong together
    CREATE TABLE reviews (
        source text NOT NULL,
        sha256 text NOT NULL,                     -- of the original file
        reason text NOT NULL,                     -- the reason code that was judged
        decision text NOT NULL CHECK (decision IN ('released', 'rejected')),
        label text,                               -- the reviewer's, in place of the source's
        note text,                                -- the reviewer's words
        reviewer text NOT NULL,
        reviewed_at timestamptz NOT NULL DEFAULT now(),
        PRIMARY KEY (source, sha256, reason)
    );
    CREATE TABLE forgotten (
        mark text PRIMARY KEY,                    -- keyed hash of a pseudonym or a file's SHA-256; leads back to nobody
        begun_at timestamptz NOT NULL DEFAULT now(),
        finished_at timestamptz                   -- NULL: cut short; the same command goes on
    );
    CREATE INDEX samples_by_patient ON samples (patient_pseudonym);
    """)
