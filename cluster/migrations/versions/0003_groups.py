"""On which side of the split each image was put, and so each patient and group: later versions keep to it."""

from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.execute("""
    CREATE TABLE placements (
        scheme text NOT NULL,                     -- seed and shares of the split
        source text NOT NULL,
        sha256 text NOT NULL,                     -- of the original file
        patient_pseudonym text NOT NULL,
        group_key text NOT NULL,
        split text NOT NULL CHECK (split IN ('train', 'validation', 'test')),
        decided bigint NOT NULL,                  -- number of the decision; an earlier one has precedence
        PRIMARY KEY (scheme, source, sha256, patient_pseudonym, group_key)
    );
    CREATE TABLE split_decisions (
        scheme text NOT NULL,
        inputs text NOT NULL,                     -- fingerprint of the images and settings it was made for
        number bigint NOT NULL,                   -- made again, it follows what was decided up to this one
        decided_at timestamptz NOT NULL DEFAULT now(),
        PRIMARY KEY (scheme, inputs)
    );
    CREATE INDEX placements_by_patient ON placements (patient_pseudonym);
    """)
