"""Review the quarantine: which image is released, with which label, and which stays out.

`jobs.ingest` asks with `--report`, `--release` and `--reject`; `etl` reads the decisions with `applied`. A decision
belongs to an image and the reason that was judged; another reason asks for another decision. Every decision is in the
audit table under the number of the quarantine's row, which says nothing of the image.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Literal

from cluster.database import audit
from cluster.settings import Settings
from data.catalog import tables
from data.catalog.originals import QUARANTINE, RAW, Originals
from data.catalog.tables import Connection, Sample
from data.taxonomy import taxonomy

Decision = Literal["released", "rejected"]
LONGEST_NOTE = 500

RELEASABLE = {
    "blank": "the check of its contrast lets it pass",
    "too_small": "the check of its size lets it pass",
    "colour": "the check for colour photographs lets it pass",
    "not_an_xray": "the check for X-rays lets it pass",
    "lateral": "the check for lateral views lets it pass",
    "inverted": "the check for inverted grey values lets it pass",
    "checksum": "the file is taken as it is, whatever its manifest says",
    "conflicting_label": "all images of these pixels get one label",
}
"""Reason → what a release does. Any other reason means that there are no pixels to release; `REMEDIES` says more."""
REMEDIES = {
    "missing": "put the file where its manifest says, and ingest again",
    "empty": "put the whole file where its manifest says, and ingest again",
    "not_a_file": "correct the path in its manifest, and ingest again",
    "unreadable": "make the file readable, and ingest again",
    "missing_original": "ingest it again: its original is gone",
    "sealed": "restore the encryption key, or ingest it again",
}
CANNOT = "it cannot be decoded: bring a sound copy of the file and ingest that"


class ReviewError(ValueError):
    """The decision cannot be carried out; one line that says why."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One row of the quarantine as a reviewer sees it: no path, no patient."""

    id: int
    source: str
    stage: str
    reason: str
    detail: str
    """One line: what is wrong, and where ingest met the file."""
    quarantined_at: datetime
    decision: Decision | None
    """None: not decided yet."""
    releasable: bool


@dataclass(frozen=True, kw_only=True)
class Reviewed:
    """The samples as the decisions leave them."""

    samples: list[Sample]
    """Without the rejected ones, with the reviewers' labels."""
    waived: dict[tuple[str, str], tuple[str, ...]]
    """Source and SHA-256 of a released image → reasons that are not to keep it out."""
    rejected: int


def entries(connection: Connection) -> list[Entry]:
    """Return the quarantine, by source, reason and number."""
    rows = connection.execute(
        "SELECT q.id, q.source, q.stage, q.reason, q.detail, q.quarantined_at, r.decision FROM quarantine q"
        " LEFT JOIN reviews r USING (source, sha256, reason) ORDER BY q.source, q.reason, q.id"
    )
    return [Entry(**row, releasable=row["reason"] in RELEASABLE) for row in rows]


def decide(
    settings: Settings,
    number: int,
    decision: Decision,
    *,
    by: str,
    label: str | None = None,
    note: str | None = None,
) -> dict[str, Any]:
    """Release or reject one image of the quarantine; the same decision again changes nothing.

    Args:
        number: id of the row.
        by: name of the reviewer.
        label: of the taxonomy, or a synonym; default: the label that the image has.
        note: kept in table `reviews` and nowhere else; it is to name no patient.
    Returns:
        `id`, `reason`, `decision`, `label`, `images` (how many it holds for) and `changed`.
    Raises:
        ReviewError, CatalogError, ObjectStoreError: one line.
    """
    if note is not None and len(note) > LONGEST_NOTE:
        raise ReviewError(f"the note has {len(note)} characters; {LONGEST_NOTE} is the most")
    translated = _label(label)
    with tables.opened(settings) as connection, connection.transaction():
        row = _row(connection, number)
        reason = row["reason"]
        if decision == "released" and reason not in RELEASABLE:
            why = REMEDIES.get(reason, CANNOT)
            raise ReviewError(f"image {number} is in quarantine for {reason!r} and cannot be released: {why}")
        together = _together(connection, row) if decision == "released" else [row]
        own = _sample(connection, row)
        chosen = None
        if decision == "released":
            if own is None:
                raise ReviewError(
                    f"image {number} was set aside without the row that it would have: ingest its folder again"
                )
            chosen = translated or (own.label if reason == "conflicting_label" else None)
            for item in together:
                _put_back(settings, connection, item)
        changed = [_note(connection, item, decision, chosen, note, by) for item in together]
        if any(changed):
            audit(
                connection,
                actor=by,
                action=f"quarantine_{decision}",
                subject=f"quarantine/{number}",
                detail={"reason": reason, "label": chosen, "ids": sorted(item["id"] for item in together)},
            )
    return {
        "id": number,
        "reason": reason,
        "decision": decision,
        "label": chosen,
        "images": len(together),
        "changed": any(changed),
    }


def applied(connection: Connection, samples: Sequence[Sample]) -> Reviewed:
    """Carry the decisions over to the samples that a dataset is made of."""
    labels: dict[tuple[str, str], str] = {}
    waived: dict[tuple[str, str], tuple[str, ...]] = {}
    rejected: set[tuple[str, str]] = set()
    query = "SELECT source, sha256, reason, decision, label FROM reviews ORDER BY reviewed_at, reason"
    for row in connection.execute(query):
        image = row["source"], row["sha256"]
        if row["decision"] == "rejected":
            rejected.add(image)
            continue
        waived[image] = tuple(sorted({*waived.get(image, ()), row["reason"]}))
        if row["label"] is not None:
            labels[image] = row["label"]
    remaining = [
        replace(sample, label=labels.get((sample.source, sample.sha256), sample.label))
        for sample in samples
        if (sample.source, sample.sha256) not in rejected
    ]
    inside = {(sample.source, sample.sha256) for sample in remaining}
    return Reviewed(
        samples=remaining,
        waived={image: reasons for image, reasons in waived.items() if image in inside},
        rejected=len(samples) - len(remaining),
    )


def _label(label: str | None) -> str | None:
    if label is None:
        return None
    translated = taxonomy().translate(label)
    if translated is None:
        raise ReviewError(f"{label!r} is no label; there are {', '.join(taxonomy().names)}")
    return translated


def _row(connection: Connection, number: int) -> dict[str, Any]:
    row = connection.execute("SELECT * FROM quarantine WHERE id = %s FOR UPDATE", [number]).fetchone()
    if row is None:
        raise ReviewError(
            f"there is no image {number} in quarantine: `python -m jobs.ingest --report --details` lists them"
        )
    return row


def _together(connection: Connection, row: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the rows that one release is about: for contradictory labels all images of the same pixels."""
    if row["reason"] != "conflicting_label" or row["pixel_sha256"] is None:
        return [row]
    return connection.execute(
        "SELECT * FROM quarantine WHERE reason = %s AND pixel_sha256 = %s ORDER BY id FOR UPDATE",
        [row["reason"], row["pixel_sha256"]],
    ).fetchall()


def _sample(connection: Connection, row: dict[str, Any]) -> Sample | None:
    """Return the image's row of `samples`: the one that is there, or the one that its quarantine holds."""
    there = tables.samples(connection, [row["source"]], row["sha256"])
    if there:
        return there[0]
    return Sample(**row["sample"]) if row["sample"] else None


def _put_back(settings: Settings, connection: Connection, row: dict[str, Any]) -> None:
    """Make sure that the original is in bucket `raw` and its row in `samples`."""
    sample = _sample(connection, row)
    if sample is None:
        raise ReviewError(f"image {row['id']} has no row to put back: ingest its folder again")
    originals = Originals.of(settings)
    if not originals.present(RAW, [sample.raw_key]):
        if row["object_key"] is None:
            raise ReviewError(f"the original of image {row['id']} is gone: ingest it again")
        try:
            blob = originals.get(row["object_key"], QUARANTINE)
        except FileNotFoundError as error:
            raise ReviewError(f"the original of image {row['id']} is gone: ingest it again") from error
        originals.put(RAW, row["sha256"], blob)
    if not tables.samples(connection, [row["source"]], row["sha256"]):
        tables.write_samples(connection, [sample])


def _note(
    connection: Connection,
    row: dict[str, Any],
    decision: Decision,
    label: str | None,
    note: str | None,
    by: str,
) -> bool:
    """Write the decision; return True if that changed anything."""
    cursor = connection.execute(
        "INSERT INTO reviews (source, sha256, reason, decision, label, note, reviewer)"
        " VALUES (%(source)s, %(sha256)s, %(reason)s, %(decision)s, %(label)s, %(note)s, %(by)s)"
        " ON CONFLICT (source, sha256, reason) DO UPDATE SET decision = EXCLUDED.decision,"
        " label = EXCLUDED.label, note = coalesce(EXCLUDED.note, reviews.note),"
        " reviewer = EXCLUDED.reviewer, reviewed_at = now()"
        " WHERE (reviews.decision, coalesce(reviews.label, ''))"
        " <> (EXCLUDED.decision, coalesce(EXCLUDED.label, ''))",
        {**row, "decision": decision, "label": label, "note": note, "by": by},
    )
    return cursor.rowcount == 1
