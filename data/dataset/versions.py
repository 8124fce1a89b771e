"""Read and publish dataset versions: list them, read their manifests, load their samples as arrays.

`etl` publishes; training, evaluation, batch inference and drift checks read. A version is complete when its
`manifest.json` is there, and its files never change after that: each part is verified on reading.
"""

import hashlib
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cluster.objects import ObjectStore
from data.dataset.split import Split

BUCKET = "datasets"
COMMIT = "manifest.json"
TOMBSTONE = "tombstone"
"""Column of a part that holds, in place of an erased row, the hash of that row; null in all others."""


class VersionError(ValueError):
    """No such dataset version, or a part of it is gone or changed; one line that says what to do."""


@dataclass(frozen=True, kw_only=True)
class SplitTable:
    """One side of a version, by sample hash; all fields have one entry a sample."""

    sample_hashes: list[str]
    pixels_NHW: np.ndarray
    """uint8, 0 = air."""
    labels_N: np.ndarray
    """int64, index into the version's classes."""
    groups: list[str]
    """Group keys: what a bootstrap over patients draws."""
    sources: list[str]
    sites: list[str | None]
    sexes: list[str | None]
    ages: list[float | None]
    """Years."""
    views: list[str | None]
    sha256s: list[str]
    """Of the original files."""

    def __len__(self) -> int:
        return len(self.sample_hashes)


def part_key(version: str, split: str, number: int) -> str:
    return f"{version}/data/{split}-{number:05d}.parquet"


def names(store: ObjectStore) -> list[str]:
    """List the published versions."""
    keys = store.keys(BUCKET, "")
    return sorted(key.removesuffix(f"/{COMMIT}") for key in keys if key.endswith(f"/{COMMIT}"))


def manifest(store: ObjectStore, version: str) -> dict[str, Any]:
    """Read the commit object of a version: settings, classes, counts, sources, licences, parts.

    Raises:
        VersionError: there is no complete version of that name; the message lists those that there are.
    """
    try:
        described: dict[str, Any] = store.get_json(BUCKET, f"{version}/{COMMIT}")
    except FileNotFoundError as error:
        there = ", ".join(names(store)) or "none yet: run `python -m jobs.etl`"
        raise VersionError(f"there is no dataset version {version!r}; there are: {there}") from error
    return described


def published(store: ObjectStore, version: str) -> dict[str, Any] | None:
    """Return the manifest when the version is complete, else None."""
    return manifest(store, version) if store.exists(BUCKET, f"{version}/{COMMIT}") else None


def publish(store: ObjectStore, version: str, described: Mapping[str, Any]) -> None:
    """Make a version visible; its parts are written already."""
    store.put_json(BUCKET, f"{version}/{COMMIT}", described)


def _in_memory(shape: tuple[int, ...]) -> np.ndarray:
    return np.empty(shape, np.uint8)


def load_split(
    store: ObjectStore,
    version: str,
    split: Split,
    allocate: Callable[[tuple[int, ...]], np.ndarray] = _in_memory,
) -> SplitTable:
    """Read one side of a version, a part at a time.

    Args:
        allocate: gives the place for all pixels, uint8 of this shape; by default in memory.
    Raises:
        VersionError: no such version, or a part is gone or changed.
    """
    described = manifest(store, version)
    try:
        return _load(store, described, split, allocate)
    except VersionError:
        now = manifest(store, version)
        if now["parts"] == described["parts"]:
            raise
        return _load(store, now, split, allocate)  # a patient was erased between manifest and parts


def _load(
    store: ObjectStore,
    described: Mapping[str, Any],
    split: Split,
    allocate: Callable[[tuple[int, ...]], np.ndarray],
) -> SplitTable:
    side = described["settings"]["pixels"]["side"]
    parts = [part for part in described["parts"] if part["split"] == split]
    tables = []
    pixels_NHW = allocate((sum(part["rows"] for part in parts), side, side))
    start = 0
    for part in parts:
        table = without_tombstones(pq.read_table(io.BytesIO(read_part(store, described["version"], part))))
        blob = b"".join(table["pixels"].to_pylist())
        end = start + table.num_rows
        pixels_NHW[start:end] = np.frombuffer(blob, np.uint8).reshape(-1, side, side)
        tables.append(table.drop_columns(["pixels"]))
        start = end
    columns = _columns(tables)
    return SplitTable(
        sample_hashes=columns["sample_hash"],
        pixels_NHW=pixels_NHW,
        labels_N=np.asarray(columns["label_index"], np.int64),
        groups=columns["group_key"],
        sources=columns["source"],
        sites=columns["site"],
        sexes=columns["sex"],
        ages=columns["age"],
        views=columns["view"],
        sha256s=columns["sha256"],
    )


def without_tombstones(table: pa.Table | pa.RecordBatch) -> pa.Table:
    """Return the rows of a part that are not erased."""
    if isinstance(table, pa.RecordBatch):
        table = pa.Table.from_batches([table])
    if TOMBSTONE not in table.column_names:
        return table
    return table.filter(pc.is_null(table[TOMBSTONE])).drop_columns([TOMBSTONE])


def read_part(store: ObjectStore, version: str, part: Mapping[str, Any]) -> bytes:
    """Read one Parquet file of a version, verified.

    Raises:
        VersionError: it is gone or changed.
    """
    advice = "write it again with `python -m jobs.etl --fresh`"
    try:
        blob = store.get(BUCKET, part["key"])
    except FileNotFoundError as error:
        raise VersionError(f"dataset version {version}: {part['key']} is gone; {advice}") from error
    if hashlib.sha256(blob).hexdigest() != part["sha256"]:
        raise VersionError(f"dataset version {version}: {part['key']} was changed; {advice}")
    return blob


def _columns(tables: list[pa.Table]) -> dict[str, list[Any]]:
    wanted = ("sample_hash", "label_index", "group_key", "source", "site", "sex", "age", "view", "sha256")
    if not tables:
        return {name: [] for name in wanted}
    whole = pa.concat_tables(tables)
    return {name: whole[name].to_pylist() for name in wanted}
