"""Validate a published dataset version against the last accepted one, and record the verdict where training looks.

`jobs.etl` calls `judge` after each version and `jobs.train` calls `accepted` before it trains; an operator who has read
the report may `accept` a version in spite of it. The report lies under the version in bucket `datasets`, the verdict in
table `dataset_versions`. Knows no model.
"""

import io
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from psycopg.types.json import Jsonb

from cluster.database import audit
from cluster.objects import ObjectStore, arrow_filesystem
from cluster.settings import Settings
from data.catalog import tables
from data.dataset import versions
from data.validation import checks as validation
from data.validation import checks_report, profile
from data.validation.config import Baseline, Check, Subject, ValidationConfig, failed

REPORT_JSON, REPORT_HTML = "validation.json", "validation.html"
GROUP_ROWS = 1024
"""Rows whose pixels are in memory at a time, of each part that is being read."""
THREADS = 2


@dataclass(frozen=True, kw_only=True)
class Judged:
    version: str
    accepted: bool
    baseline: str | None
    """The version that it was compared with."""
    checks: tuple[Check, ...]
    report: str
    """Address of the page."""
    already_accepted: bool = False
    """True when it had been accepted before and was not validated again."""

    def line(self) -> dict[str, Any]:
        """Return the fields of the job's last line."""
        verdicts: dict[str, list[str]] = {}
        for check in self.checks:
            verdicts.setdefault(check.verdict.replace(" ", "_"), []).append(check.name)
        return {
            "accepted": self.accepted,
            "baseline": self.baseline,
            "report": self.report,
            **({"kept": True} if self.already_accepted else verdicts),
        }

    def why(self) -> str:
        """Join the failed checks in one line."""
        return "; ".join(f"{check.name}: {check.finding}" for check in failed(self.checks))


def judge(
    settings: Settings,
    version: str,
    config: ValidationConfig,
    *,
    asked_sources: Sequence[str] = (),
) -> Judged:
    """Validate a version, write its report and record the verdict; an accepted version keeps its verdict.

    Args:
        asked_sources: sources that the version was made of; empty: all of the catalog.
    Raises:
        VersionError, CatalogError, ObjectStoreError: one line each.
    """
    store = ObjectStore(settings)
    described = versions.manifest(store, version)
    address = report_address(settings, version)
    if accepted(settings, version):
        return Judged(
            version=version, accepted=True, baseline=None, checks=(), report=address, already_accepted=True
        )
    baseline = _baseline(settings, store, described, asked_sources)
    checks, whole = validation.validate(
        Subject(rows=_rows(store, described), described=described), baseline, config
    )
    judged = Judged(
        version=version,
        accepted=not failed(checks),
        baseline=baseline.version if baseline else None,
        checks=tuple(checks),
        report=address,
    )
    report = {
        "format": 1,
        "version": version,
        "baseline": judged.baseline,
        "accepted": judged.accepted,
        "judged_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "config": asdict(config),
        "checks": [asdict(check) for check in checks],
        "profile": asdict(whole) if whole else None,
    }
    before = baseline.profile if baseline else None
    page = checks_report.page(report, checks, whole, before)
    store.put(versions.BUCKET, f"{version}/{REPORT_HTML}", page.encode())
    store.put_json(versions.BUCKET, f"{version}/{REPORT_JSON}", report)
    _record(settings, described, judged.accepted, "validation")
    return judged


def accepted(settings: Settings, version: str) -> bool | None:
    """Return the verdict over a version; None when it was not validated, or is not known.

    Raises:
        CatalogError: PostgreSQL does not answer.
    """
    with tables.opened(settings) as connection:
        row = connection.execute(
            "SELECT accepted FROM dataset_versions WHERE version = %s", [version]
        ).fetchone()
    return None if row is None else row["accepted"]


def report_address(settings: Settings, version: str) -> str:
    """Return the address of the page that shows the checks."""
    return f"s3://{settings.bucket(versions.BUCKET)}/{version}/{REPORT_HTML}"


def accept(settings: Settings, version: str, *, by: str, note: str | None) -> None:
    """Let models be trained on a version in spite of its checks; audited.

    Raises:
        VersionError: there is no such version, or it was not validated yet.
    """
    store = ObjectStore(settings)
    described = versions.manifest(store, version)
    if not store.exists(versions.BUCKET, f"{version}/{REPORT_JSON}"):
        raise versions.VersionError(
            f"dataset version {version} was not validated: run `python -m jobs.etl` and read its report first"
        )
    report = store.get_json(versions.BUCKET, f"{version}/{REPORT_JSON}")
    failures = [check["name"] for check in report["checks"] if check["verdict"] == "fail"]
    _record(settings, described, True, by)
    with tables.opened(settings) as connection:
        audit(
            connection,
            actor=by,
            action="accept_dataset",
            subject=version,
            detail={"failed": failures, "note": note},
        )


def _record(settings: Settings, described: Mapping[str, Any], verdict: bool, by: str) -> None:
    with tables.opened(settings) as connection:
        connection.execute(
            "INSERT INTO dataset_versions (version, manifest, accepted, judged_at, judged_by)"
            " VALUES (%s, %s, %s, now(), %s) ON CONFLICT (version) DO UPDATE"
            " SET accepted = EXCLUDED.accepted, judged_at = now(), judged_by = EXCLUDED.judged_by",
            [described["version"], Jsonb(described), verdict, by],
        )


def _baseline(
    settings: Settings, store: ObjectStore, described: Mapping[str, Any], asked: Sequence[str]
) -> Baseline | None:
    """Return the newest accepted version, but this one, that has a source in common with it."""
    with tables.opened(settings) as connection:
        names = [
            row["version"]
            for row in connection.execute(
                "SELECT version FROM dataset_versions WHERE accepted AND version <> %s"
                " ORDER BY judged_at DESC",
                [described["version"]],
            )
        ]
    for name in names:
        before = versions.published(store, name)
        if before is None or not {*before["sources"]} & {*described["sources"]}:
            continue
        known = _profile(store, before)
        gone = {*before["sources"]} - {*described["sources"]}
        return Baseline(
            version=name,
            profile=known,
            same_pixels=_pixels(before) == _pixels(described),
            sample_hashes=_sample_hashes(settings, before),
            missing_sources=tuple(sorted(gone & {*asked} if asked else gone)),
        )
    return None


def _pixels(described: Mapping[str, Any]) -> tuple[Any, Any]:
    return described["settings"]["pixels"], described["settings"]["preprocess_version"]


def _profile(store: ObjectStore, described: Mapping[str, Any]) -> profile.Profile:
    """Read the profile from the version's report, or compute it from its images when the report is gone."""
    key = f"{described['version']}/{REPORT_JSON}"
    if store.exists(versions.BUCKET, key):
        values = store.get_json(versions.BUCKET, key)["profile"]
        if values is not None:
            return profile.Profile(**values)
    return profile.of(_rows(store, described))


def _rows(store: ObjectStore, described: Mapping[str, Any]) -> pd.DataFrame:
    """Read the logical rows of a version, with the statistics of their pixels that the checks need."""
    with ThreadPoolExecutor(THREADS) as pool:
        frames = list(pool.map(lambda part: _part_rows(store, described, part), described["parts"]))
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


def _part_rows(store: ObjectStore, described: Mapping[str, Any], part: Mapping[str, Any]) -> pd.DataFrame:
    blob = versions.read_part(store, described["version"], part)
    frames = []
    for batch in pq.ParquetFile(io.BytesIO(blob)).iter_batches(GROUP_ROWS):
        table = versions.without_tombstones(batch)
        pixels = [np.frombuffer(image, np.uint8) for image in table["pixels"].to_pylist()]
        frame = table.drop_columns(["pixels"]).to_pandas()
        frame["mean"] = np.array([image.mean() if image.size else 0.0 for image in pixels], np.float32)
        frame["contrast"] = np.array([image.std() if image.size else 0.0 for image in pixels], np.float32)
        frame["pixel_bytes"] = [len(image) for image in pixels]
        frames.append(frame)
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


def _sample_hashes(settings: Settings, described: Mapping[str, Any]) -> frozenset[str]:
    filesystem = arrow_filesystem(settings)
    hashes: set[str] = set()
    for part in described["parts"]:
        path = f"{settings.bucket(versions.BUCKET)}/{part['key']}"
        table = pq.read_table(path, filesystem=filesystem, columns=["sample_hash"])
        hashes.update(table["sample_hash"].drop_null().to_pylist())
    return frozenset(hashes)
