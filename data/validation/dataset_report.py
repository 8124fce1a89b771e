"""Make the HTML page of a dataset version: what is in it, what was left out and why, what could mislead a model.

`jobs.etl` stores it under the version, after the commit: it is no part of the version and can be made again at
any time. Self-contained, so that it can be sent as one file. Every picture in it is made of canonical pixels,
whose burned-in text was masked, at the size of a stamp; an original is never shown. Knows no model.
"""

import base64
import io
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from cluster.objects import ObjectStore, arrow_filesystem
from cluster.secrets import SecretError
from cluster.settings import Settings
from data.catalog import tables as catalog
from data.catalog.originals import QUARANTINE, Originals
from data.catalog.quarantine_review import RELEASABLE
from data.catalog.tables import Quarantined
from data.dataset import versions
from data.dataset.groups import WOULD_JOIN_TWO_SIDES
from data.dataset.split import SPLITS
from data.dataset.versions import BUCKET
from data.imaging.preprocess import BadImageError, PixelConfig
from data.sandbox.decoder import process_decoder
from data.validation.report_tables import Table, class_by_source, demographics
from data.validation.shortcut_probes import PROBED_IMAGES, Shortcuts, View, features, shortcuts

NAME = "report.html"
TEMPLATE = Path(__file__).with_name("dataset_report.html.j2")
COLUMNS = ("label", "split", "source", "group_key", "sex", "age", "view")
BATCH_ROWS = 128

STAMP_SIDE = 96
STAMPS_A_CLASS = 5
REJECT_SIDE = 48
"""Of a reject's stamp, pixels: what text was overlooked cannot be read."""
REJECTS_A_REASON = 6
DECODED = frozenset(RELEASABLE) | {WOULD_JOIN_TWO_SIDES}
"""Reasons found in an image that decodes; no other reject is ever decoded for a stamp."""
WITHHELD_SHOWN = 50


@dataclass(frozen=True, kw_only=True)
class Stamp:
    """A small picture."""

    uri: str
    """`data:` URI of a JPEG."""
    alt: str
    caption: str


@dataclass(frozen=True, kw_only=True)
class Reject:
    """One reason, and the images that were left out for it."""

    reason: str
    stage: str
    number: int
    detail: str
    """Of one of them."""
    stamps: tuple[Stamp, ...]
    without_stamp: str
    """Why there is no picture; empty where there is one."""


@dataclass(frozen=True, kw_only=True)
class Page:
    """All that the template shows."""

    described: Mapping[str, Any]
    """The version's manifest."""
    made_at: str
    tables: tuple[Table, ...]
    contact: tuple[tuple[str, tuple[Stamp, ...]], ...]
    """Class → stamps."""
    rejects: tuple[Reject, ...]
    shortcuts: Shortcuts


def publish(settings: Settings, version: str, *, again: bool = False) -> str:
    """Store the page of a version, unless it is there; returns its key in bucket `datasets`.

    Raises:
        VersionError: there is no such version.
        ObjectStoreError, CatalogError, SecretError: what happened and what to do, in one line.
    """
    store = ObjectStore(settings)
    key = f"{version}/{NAME}"
    if again or not store.exists(BUCKET, key):
        store.put(BUCKET, key, render(collect(settings, version)).encode())
    return key


def render(page: Page) -> str:
    """Render the page as one HTML file."""
    return render_template(TEMPLATE, page=page, splits=SPLITS, shown=WITHHELD_SHOWN)


def render_template(template: Path, **values: Any) -> str:
    """Fill a template; all values are escaped, and a missing one is an error."""
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["percent"] = lambda share: f"{100 * share:.0f} %"
    return environment.from_string(template.read_text()).render(**values)


def collect(settings: Settings, version: str) -> Page:
    """Read what the page shows: all rows without their pixels, the pixels of a few thousand, the quarantine."""
    store = ObjectStore(settings)
    described = versions.manifest(store, version)
    rows = _rows(settings, described)
    seen = _Sample.of(settings, described)
    with catalog.opened(settings) as connection:
        quarantined = catalog.quarantined(connection, sorted(described["sources"]))
    by_source = {
        label: dict(Counter(row["source"] for row in rows if row["label"] == label))
        for label in described["classes"]
    }
    return Page(
        described=described,
        made_at=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        tables=(class_by_source(rows, described["classes"]), *demographics(rows)),
        contact=tuple((name, tuple(seen.stamps.get(name, ()))) for name in described["classes"]),
        rejects=_rejects(quarantined, Originals.of(settings)),
        shortcuts=shortcuts(seen.features, seen.labels, seen.sources, seen.groups, by_source),
    )


def _rows(settings: Settings, described: Mapping[str, Any]) -> list[dict[str, Any]]:
    filesystem, store = arrow_filesystem(settings), ObjectStore(settings)
    rows: list[dict[str, Any]] = []
    for part in described["parts"]:
        with filesystem.open_input_file(store.path(BUCKET, part["key"])) as file:
            parquet = pq.ParquetFile(file)
            rows += versions.without_tombstones(parquet.read(_columns(parquet, COLUMNS))).to_pylist()
    return rows


def _columns(parquet: pq.ParquetFile, wanted: Sequence[str]) -> list[str]:
    """Return the wanted columns, and that of the tombstones where a patient was erased."""
    there = parquet.schema_arrow.names
    return [*wanted, *(name for name in (versions.TOMBSTONE,) if name in there)]


class _Sample:
    """The first images of each split: in the order of their hashes, so they are drawn at random."""

    def __init__(self) -> None:
        self.features: list[dict[View, np.ndarray]] = []
        self.labels: list[str] = []
        self.sources: list[str] = []
        self.groups: list[str] = []
        self.stamps: dict[str, list[Stamp]] = {}

    @classmethod
    def of(cls, settings: Settings, described: Mapping[str, Any]) -> "_Sample":
        sample = cls()
        total = sum(part["rows"] for part in described["parts"])
        side = described["settings"]["pixels"]["side"]
        for split in SPLITS:
            parts = [part for part in described["parts"] if part["split"] == split]
            inside = sum(part["rows"] for part in parts)
            wanted = -(-inside * min(total, PROBED_IMAGES) // max(total, 1))
            for row in _first(settings, parts, wanted):
                sample.add(row, np.frombuffer(row["pixels"], np.uint8).reshape(side, side))
        return sample

    def add(self, row: Mapping[str, Any], pixels_HW: np.ndarray) -> None:
        self.features.append(features(pixels_HW))
        self.labels.append(row["label"])
        self.sources.append(row["source"])
        self.groups.append(row["group_key"])
        stamps = self.stamps.setdefault(row["label"], [])
        if len(stamps) < STAMPS_A_CLASS:
            alt = f"X-ray of class {row['label']} from {row['source']}, in {row['split']}"
            stamps.append(_stamp(pixels_HW, STAMP_SIDE, alt, f"{row['source']}, {row['split']}"))


def _first(settings: Settings, parts: Sequence[Mapping[str, Any]], wanted: int) -> Iterator[dict[str, Any]]:
    """Yield the first rows of the parts, with their pixels; reads little more than those."""
    filesystem, store = arrow_filesystem(settings), ObjectStore(settings)
    for part in parts:
        with filesystem.open_input_file(store.path(BUCKET, part["key"])) as file:
            parquet = pq.ParquetFile(file)
            columns = _columns(parquet, [*COLUMNS, "pixels"])
            for batch in parquet.iter_batches(batch_size=BATCH_ROWS, columns=columns):
                for row in versions.without_tombstones(batch).to_pylist():
                    if wanted <= 0:
                        return
                    wanted -= 1
                    yield row


def _stamp(pixels_HW: np.ndarray, side: int, alt: str, caption: str) -> Stamp:
    buffer = io.BytesIO()
    Image.fromarray(pixels_HW).resize((side, side), Image.Resampling.BOX).save(buffer, "jpeg", quality=75)
    uri = f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    return Stamp(uri=uri, alt=alt, caption=caption)


def _rejects(rows: Iterable[Quarantined], originals: Originals) -> tuple[Reject, ...]:
    by_reason: dict[tuple[str, str], list[Quarantined]] = {}
    for row in rows:
        by_reason.setdefault((row.reason, row.stage), []).append(row)
    return tuple(_reject(group, originals) for _, group in sorted(by_reason.items()))


def _reject(rows: Sequence[Quarantined], originals: Originals) -> Reject:
    first = rows[0]
    stamps: list[Stamp] = []
    why = "no picture: the file was not decoded"
    if first.reason in DECODED:
        made = [_reject_stamp(row, originals) for row in rows[:REJECTS_A_REASON]]
        stamps = [stamp for stamp in made if stamp is not None]
        why = "" if stamps else "no picture: the file is gone or no longer decodes"
    return Reject(
        reason=first.reason,
        stage=first.stage,
        number=len(rows),
        detail=first.detail,
        stamps=tuple(stamps),
        without_stamp=why,
    )


def _reject_stamp(row: Quarantined, originals: Originals) -> Stamp | None:
    """Make a stamp by the transform of every sample, which masks text, but for the checks that a reviewer can waive.

    Returns None where nothing comes out.
    """
    if row.object_key is None:
        return None
    try:
        blob = originals.get(row.object_key, QUARANTINE)
        pixels_HW = process_decoder().to_pixels(blob, PixelConfig(side=REJECT_SIDE), waived=RELEASABLE)
    except (FileNotFoundError, SecretError, BadImageError):
        return None
    alt = f"X-ray from {row.source} that was left out: {row.reason}"
    return _stamp(pixels_HW, REJECT_SIDE, alt, f"{row.source} {row.sha256[:8]}")
