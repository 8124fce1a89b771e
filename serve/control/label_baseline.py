"""How often a version gives each label, frozen when a rollout starts, to tell drift of the input from the canary's.

Drift in the canary's arm alone is the canary's, and rolls it back; drift of the champion's own answers against
this mix is the input's, which rolling back would not cure (`serve.canary.verdict`). Reads PostgreSQL; knows
neither Ray nor torch.
"""

from collections.abc import Sequence
from typing import Any

from psycopg import Connection
from psycopg.rows import DictRow

DAYS = 30
LEAST_PATIENTS = 5_000
"""With fewer the mix is not known well enough for a factor of 1.5 to mean anything (docs/experiments.md)."""
MOST_PATIENTS = 50_000
READ = """
    SELECT label, count(*) AS patients FROM (
        SELECT DISTINCT ON (patient) label FROM (
            SELECT coalesce(patient_pseudonym, assignment->>'study', id::text) AS patient, answer->>'label' AS label,
                   created_at
            FROM predictions
            WHERE model = %s AND served_version = %s AND created_at > now() - make_interval(days => %s)
            ORDER BY created_at DESC LIMIT %s
        ) AS answers ORDER BY patient, created_at DESC
    ) AS newest GROUP BY label
"""


def label_mix(
    connection: Connection[DictRow],
    *,
    model: str,
    version: str,
    labels: Sequence[str],
    least_patients: int = LEAST_PATIENTS,
) -> dict[str, float] | None:
    """Return the share of patients whose newest answer by this version has each label; None while there are too few.

    A request without patient or study is a patient of its own.
    """
    parameters: list[Any] = [model, version, DAYS, MOST_PATIENTS]
    rows = connection.execute(READ, parameters).fetchall()
    counts = {row["label"]: row["patients"] for row in rows if row["label"] in labels}
    total = sum(counts.values())
    if total < least_patients:
        return None
    return {label: counts.get(label, 0) / total for label in labels}
