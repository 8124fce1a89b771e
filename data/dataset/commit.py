"""Publish a dataset version: quarantine what it leaves out, write its manifest last, record it, sweep what was staged.

`data.dataset.etl` calls each step in this order. Every step is safe to repeat.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from cluster.expected import ExpectedError
from cluster.objects import ObjectStore
from cluster.patience import PATIENCE_S
from cluster.settings import Settings
from data.catalog import erased_patients, tables
from data.catalog.originals import QUARANTINE, Originals
from data.catalog.tables import Quarantined, Sample
from data.dataset import versions
from data.dataset.groups import WOULD_JOIN_TWO_SIDES
from data.dataset.rows import Assembly
from data.dataset.split import SPLITS
from data.dataset.staging import Stage, abandoned
from data.dataset.versions import BUCKET

CONFLICT = "an image with the same pixels has another label"


class EtlError(ExpectedError):
    """There is nothing to make a dataset of, or a worker could not go on; one line."""


@dataclass(frozen=True, kw_only=True)
class EtlReport:
    version: str
    counts: dict[str, dict[str, int]]
    """Split → class → number of images."""
    quarantined: dict[str, int]
    """Reason → number of images left out; `duplicate` counts equal samples, of which one stays, `rejected` what
    reviewers keep out."""
    reused: bool
    """True when the version was there already and its files stayed."""
    blocks: int = field(default=0, compare=False)
    """Blocks that the images were cut into; 0 where none had to be decoded."""
    blocks_found: int = field(default=0, compare=False)
    """Of these, how many an earlier run that was cut short had staged."""


def indexed(store: ObjectStore, fingerprint: str) -> dict[str, Any] | None:
    """Return the manifest of the version that inputs of this fingerprint gave before, None when there is none."""
    if not store.exists(BUCKET, _index_key(fingerprint)):
        return None
    version: str = store.get_json(BUCKET, _index_key(fingerprint))["version"]
    return versions.published(store, version)


def index(store: ObjectStore, fingerprint: str, version: str) -> None:
    """Note which version inputs of this fingerprint give."""
    store.put_json(BUCKET, _index_key(fingerprint), {"version": version})


def quarantine(settings: Settings, rejects: Sequence[Mapping[str, Any]], assembly: Assembly) -> None:
    """Record the rejects, whose files the workers have set aside; set aside images that contradict or are withheld."""
    originals = Originals.of(settings, patience_s=PATIENCE_S)

    def set_aside(sha256: str) -> None:
        originals.put(QUARANTINE, sha256, originals.get(originals.key_of(sha256)))

    with ThreadPoolExecutor() as pool:
        list(
            pool.map(
                set_aside,
                [
                    *(row.sha256 for row in assembly.conflicting),
                    *(row.sha256 for row in assembly.withheld),
                ],
            )
        )
    reasons: list[tuple[str, str, str, str, str | None]] = [
        (row["source"], row["sha256"], row["reason"], row["detail"] or "", None) for row in rejects
    ]
    reasons += [
        (row.source, row.sha256, "conflicting_label", CONFLICT, row.pixel_sha256)
        for row in assembly.conflicting
    ]
    reasons += [(row.source, row.sha256, WOULD_JOIN_TWO_SIDES, row.detail, None) for row in assembly.withheld]
    stored = originals.present(QUARANTINE, {originals.key_of(sha256) for _, sha256, *_ in reasons})
    rows = [
        Quarantined(
            source=source,
            sha256=sha256,
            stage="etl",
            reason=reason,
            detail=detail,
            object_key=object_key if (object_key := originals.key_of(sha256)) in stored else None,
            pixel_sha256=pixel_sha256,
        )
        for source, sha256, reason, detail, pixel_sha256 in reasons
    ]
    tables.patient(
        settings, lambda connection: tables.write_quarantine(connection, rows), patience_s=PATIENCE_S
    )


def publish(
    settings: Settings,
    store: ObjectStore,
    described: Mapping[str, Any],
    samples: Sequence[Sample],
    key: bytes,
) -> None:
    """Make a version visible, unless one of its patients was erased while it was made.

    The locks alone do not keep that out: PostgreSQL, restarted, frees every lock.

    Raises:
        EtlError: a patient was erased.
    """
    remembered = tables.patient(
        settings,
        lambda connection: erased_patients.without_erased(connection, samples, key),
        patience_s=PATIENCE_S,
    )
    if len(remembered) < len(samples):
        raise EtlError("a patient was forgotten while this dataset was made: run the same command again")
    versions.publish(store, described["version"], described)


def is_intact(store: ObjectStore, described: Mapping[str, Any]) -> bool:
    """Tell whether every part of a published version is there and unchanged."""
    try:
        for part in described["parts"]:
            versions.read_part(store, described["version"], part)
    except versions.VersionError:
        return False
    return True


def record(settings: Settings, described: Mapping[str, Any], *, reused: bool) -> EtlReport:
    """Write the version's row in the catalog and return the report of the run."""
    tables.patient(
        settings,
        lambda connection: tables.write_version(connection, described["version"], described),
        patience_s=PATIENCE_S,
    )
    return EtlReport(
        version=described["version"],
        counts={
            split: {name: described["counts"][split][name] for name in described["classes"]}
            for split in SPLITS
        },
        quarantined=described["quarantined"],
        reused=reused,
    )


def sweep(store: ObjectStore, stage: Stage, now: datetime | None) -> None:
    """Delete what this run has staged, and what other runs have abandoned."""
    store.delete(BUCKET, store.keys(BUCKET, stage.prefix + "/"))
    store.delete(BUCKET, abandoned(stage.objects(), now=now or datetime.now(UTC)))


def _index_key(fingerprint: str) -> str:
    return f"_index/{fingerprint}.json"
