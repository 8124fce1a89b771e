"""Erase rows of a published dataset version: a hash in place of each keeps the version's name true.

`data.privacy.erasure` calls it while no `etl` runs. New parts are written beside the old under keys of their own
content, the manifest that names them is published, the old ones are deleted: cut off anywhere, readers see a whole
version, and the same call again finishes. Knows no patients, only images and the mark to write beside each hash.
"""

import hashlib
import io
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cluster.objects import ObjectStore, arrow_filesystem
from data.dataset import versions
from data.dataset.rows import LogicalRow, row_hash
from data.dataset.split import SPLITS
from data.dataset.versions import BUCKET, TOMBSTONE

Image = tuple[str, str]
"""Source and SHA-256 of the original file."""

ROW_GROUP_ROWS = 1024
WITHOUT_PIXELS = re.compile(r"[^/]+/(manifest|validation)\.(json|html)")
"""What may stay under a version besides its parts: counts and hashes, no picture."""
COLUMNS = ("source", "sha256", "label", "split", "group_key")


@dataclass(frozen=True, kw_only=True)
class ErasedRows:
    rows: int
    """Rows with this mark that the version had, whenever they were taken out."""
    parts: int
    """Files that were written anew by this call."""
    broken: int
    """Files that were changed and held an image, or could not be read: deleted, for good."""
    unlisted: int
    """Images that the manifest no longer lists as withheld."""


def erase_rows(
    store: ObjectStore, version: str, images: Collection[Image], mark: str, licenses: Mapping[Image, str]
) -> ErasedRows:
    """Erase the rows of these images from a version.

    Args:
        images: which; a rerun after their removal has none left to find. The old parts stay until `clean`.
        mark: written beside the hashes, so that a rerun knows its own.
        licenses: of the images, where known, to correct the manifest's counts.
    """
    described = versions.manifest(store, version)
    parts, left, taken, broken = [], [], [], 0
    gone = [part["key"] for part in described["parts"] if not store.exists(BUCKET, part["key"])]
    for part in described["parts"]:
        if part["key"] in gone:
            parts.append(part)
            continue
        columns = _readable(store, part, images)
        if columns is None:
            store.delete(BUCKET, [part["key"]])
            parts.append(part)
            broken += 1
            continue
        hit = holds(columns, images)
        left.append(columns.filter(pc.invert(hit)))
        if not pc.any(hit).as_py():
            parts.append(part)
            continue
        written, rows = _rewrite(store, version, part, images)
        parts.append(written)
        taken += rows
    rewritten = sum(new is not old for new, old in zip(parts, described["parts"], strict=True))
    withheld = described.get("withheld", [])
    listed = [row for row in withheld if (row["source"], row["sha256"]) not in images]
    if len(listed) < len(withheld):
        described["withheld"] = listed
    if taken:
        stones = [{"row": row_hash(row), "split": row.split, "mark": mark} for row in taken]
        described["tombstones"] = sorted(
            [*described.get("tombstones", []), *stones], key=lambda row: str(row["row"])
        )
        described["parts"] = parts
        if not broken and not gone:
            _recount(described, left, [licenses.get((row.source, row.sha256)) for row in taken])
    if taken or len(listed) < len(withheld):
        versions.publish(store, version, described)
    return ErasedRows(
        rows=sum(row["mark"] == mark for row in described.get("tombstones", [])),
        parts=rewritten,
        broken=broken,
        unlisted=len(withheld) - len(listed),
    )


def clean(store: ObjectStore, version: str) -> None:
    """Delete the parts that the manifest no longer names, and pages of the version that may show a picture."""
    named = {part["key"] for part in versions.manifest(store, version)["parts"]}
    under = store.keys(BUCKET, f"{version}/")
    store.delete(BUCKET, [key for key in under if key not in named and not WITHOUT_PIXELS.fullmatch(key)])


def _readable(store: ObjectStore, part: Mapping[str, Any], images: Collection[Image]) -> pa.Table | None:
    """Return which images a part holds; None where it holds one and was changed since it was written, or may.

    Readers refuse such a part either way, so nothing usable is lost with it.
    """
    try:
        columns = columns_of(store, part["key"])
    except (pa.ArrowInvalid, OSError):
        if _is_whole(store, part):
            raise  # not the file: the store
        return None
    touched = pc.any(holds(columns, images)).as_py()
    return None if touched and not _is_whole(store, part) else columns


def _is_whole(store: ObjectStore, part: Mapping[str, Any]) -> bool:
    return hashlib.sha256(store.get(BUCKET, part["key"])).hexdigest() == part["sha256"]


def columns_of(store: ObjectStore, key: str) -> pa.Table:
    """Read from a Parquet file in bucket `datasets` the columns that name its images, without their pixels.

    Tombstones are left out; a file that has no such columns gives none.
    """
    with arrow_filesystem(store.settings).open_input_file(store.path(BUCKET, key)) as file:
        parquet = pq.ParquetFile(file)
        there = set(parquet.schema_arrow.names)
        if not {"source", "sha256"} <= there:
            return pa.table({"source": pa.array([], pa.string()), "sha256": pa.array([], pa.string())})
        table = parquet.read(columns=[name for name in (*COLUMNS, TOMBSTONE) if name in there])
    return versions.without_tombstones(table)


def holds(table: pa.Table, images: Collection[Image]) -> pa.Array:
    """Return one bool a row: true where it is one of the images."""
    pairs = zip(table["source"].to_pylist(), table["sha256"].to_pylist(), strict=True)
    return pa.array([pair in images for pair in pairs], pa.bool_())


def _rewrite(
    store: ObjectStore, version: str, part: Mapping[str, Any], images: Collection[Image]
) -> tuple[dict[str, Any], list[LogicalRow]]:
    """Write one part again; return its entry of the manifest and the rows that it lost."""
    table = pq.read_table(io.BytesIO(versions.read_part(store, version, part)))
    if TOMBSTONE not in table.column_names:
        table = table.append_column(TOMBSTONE, pa.nulls(table.num_rows, pa.string()))
    hit = holds(table, images)
    lost = [_logical(row) for row in table.filter(hit).drop_columns(["pixels"]).to_pylist()]
    remaining = table.filter(pc.invert(hit))
    stones = pa.Table.from_pylist([{TOMBSTONE: row_hash(row)} for row in lost], schema=remaining.schema)
    buffer = io.BytesIO()
    pq.write_table(
        pa.concat_tables([remaining, stones]), buffer, compression="zstd", row_group_size=ROW_GROUP_ROWS
    )
    blob = buffer.getvalue()
    digest = hashlib.sha256(blob).hexdigest()
    stem = re.sub(r"(\.[0-9a-f]{16})?\.parquet$", "", part["key"])
    entry = {
        **part,
        "key": f"{stem}.{digest[:16]}.parquet",
        "rows": versions.without_tombstones(remaining).num_rows,
        "bytes": len(blob),
        "sha256": digest,
    }
    store.put(BUCKET, entry["key"], blob)
    return entry, lost


def _logical(row: Mapping[str, Any]) -> LogicalRow:
    """Rebuild the row that was hashed: Parquet stores ages in 32 bits, PostgreSQL shows them shortest."""
    values = {field.name: row[field.name] for field in fields(LogicalRow)}
    if values["age"] is not None:
        values["age"] = float(str(np.float32(values["age"])))
    return LogicalRow(**values)


def _recount(described: dict[str, Any], left: Sequence[pa.Table], licenses: Sequence[str | None]) -> None:
    """Count the remaining rows for the manifest."""
    rows = {
        name: [value for table in left for value in table[name].to_pylist()]
        for name in ("split", "label", "source", "group_key")
    }
    cells = Counter(zip(rows["split"], rows["label"], strict=True))
    groups = Counter(split for split, _ in {*zip(rows["split"], rows["group_key"], strict=True)})
    described["counts"] = {
        split: {name: cells[split, name] for name in described["classes"]} for split in SPLITS
    }
    described["groups"] = {split: groups[split] for split in SPLITS}
    described["sources"] = dict(sorted(Counter(rows["source"]).items()))
    known = Counter(described["licenses"])
    known.subtract(Counter(name for name in licenses if name is not None))
    described["licenses"] = {name: number for name, number in sorted(known.items()) if number > 0}
