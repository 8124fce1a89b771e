"""Shows the quarantine, and forgets a patient, for `jobs.ingest --report` and `--forget`.

Tables go to standard output before the job's line. Neither carries a path, a note or anything of a patient.
"""

import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table

from cluster import progress
from cluster.settings import Settings
from data.catalog import quarantine_review, tables
from data.catalog.quarantine_review import Entry
from data.privacy import erasure

STANDARD_INPUT = "-"


def report(settings: Settings, *, details: bool) -> dict[str, Any]:
    """Show the quarantine by source and reason; with `details` each image by its number."""
    with tables.opened(settings) as connection:
        entries = quarantine_review.entries(connection)
    groups = _groups(entries)
    _show("quarantine", ("source", "reason", "count", "open", "released", "rejected", "releasable"), groups)
    line: dict[str, Any] = {"quarantined": len(entries), "quarantine": groups}
    if details:
        images = [
            {**asdict(item), "quarantined_at": f"{item.quarantined_at:%Y-%m-%d %H:%M}"} for item in entries
        ]
        _show("images", ("id", "source", "stage", "reason", "detail", "decision", "quarantined_at"), images)
        line["images"] = images
    return line


def _groups(entries: Sequence[Entry]) -> list[dict[str, Any]]:
    counted = Counter((item.source, item.reason, item.decision or "open") for item in entries)
    groups = []
    for source, reason in sorted({(item.source, item.reason) for item in entries}):
        decisions = {name: counted[source, reason, name] for name in ("open", "released", "rejected")}
        group = {"source": source, "reason": reason, "count": sum(decisions.values()), **decisions}
        groups.append({**group, "releasable": reason in quarantine_review.RELEASABLE})
    return groups


def forget_patient(settings: Settings, patient: str, source: str | None, *, by: str) -> dict[str, Any]:
    """Forget one patient.

    Args:
        patient: the source's own id, or "-" to read it from standard input, where no list of processes and no
            history of a shell shows it.
    """
    if patient == STANDARD_INPUT:
        patient = sys.stdin.readline().strip()
    if not patient:
        raise erasure.ErasureError(
            "no patient's id was given: name it, or write it to standard input after `-`"
        )
    steps = 0

    def step(note: str) -> None:
        nonlocal steps
        steps += 1
        progress.report("forget", steps, steps, note)

    done = erasure.erase(settings, patient, source, by=by, step=step)
    held = [{"held the patient": name} for name in (*done.dataset_versions, *done.model_versions)]
    _show("dataset and model versions", ("held the patient",), held)
    return {"forgotten": asdict(done)}


def _show(title: str, columns: Sequence[str], rows: Sequence[dict[str, Any]]) -> None:
    table = Table(*columns, title=title, title_justify="left")
    for row in rows:
        table.add_row(*("" if row[name] is None else str(row[name]) for name in columns))
    Console(file=sys.stdout, soft_wrap=True).print(table)
