"""Further patients that a file is said to be of: they stay together, and each is found when forgotten."""

from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.execute("""
    CREATE TABLE further_owners (
        source text NOT NULL,
        sha256 text NOT NULL,                     -- of the original file
        patient_pseudonym text NOT NULL,
        group_key text NOT NULL,
        PRIMARY KEY (source, sha256, patient_pseudonym, group_key)
    );
    CREATE INDEX further_owners_by_patient ON further_owners (patient_pseudonym);
    """)
