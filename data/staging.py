"""What the workers of `etl` do: one block of catalog rows to staged pixels, staged pixels to one final part.

A staged block holds the pixels of its good images and the reasons of its bad ones; which rows are in a block
follows from the inputs alone, so a run that was cut short finds its finished blocks again. Knows no Ray.
"""

import hashlib
import io
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cluster.objects import ObjectStore, arrow_filesystem
from cluster.secrets import SecretError
from cluster.settings import Settings
from data.logical import LogicalRow, sample_hash
from data.originals import QUARANTINE, Originals
from data.preprocess import BadImageError, PixelConfig, to_pixels
from data.split import SPLITS
from data.versions import BUCKET, part_key

PART_BYTES = 64 * 2**20
"""Pixels of one Parquet file, before compression."""
THREADS = 3
"""A block's images in flight: one decodes while the others wait for the store."""
STAGED_GROUP_ROWS = 16
"""A part that wants few rows of a block reads little more than those."""
OUTCOME = pa.schema(
    [(name, pa.string()) for name in ("source", "sha256", "sample_hash", "pixel_sha256", "reason", "detail")]
)
STAGED = OUTCOME.append(pa.field("pixels", pa.binary()))
PART = pa.schema(
    [
        ("sample_hash", pa.string()),
        ("label", pa.string()),
        ("label_index", pa.int32()),
        ("group_key", pa.string()),
        ("split", pa.string()),
        ("source", pa.string()),
        ("sha256", pa.string()),
        ("sex", pa.string()),
        ("age", pa.float32()),
        ("view", pa.string()),
        ("site", pa.string()),
        ("pixels", pa.binary()),
    ]
)


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Where a run stages, and how; travels to the workers."""

    settings: Settings
    prefix: str
    """Keys of the staged blocks begin with it."""
    pixels: PixelConfig
    fresh: bool
    """Whether blocks that are staged already are computed again."""

    def key(self, block: int) -> str:
        return f"{self.prefix}/{block:06d}.parquet"


@dataclass(frozen=True, kw_only=True)
class Part:
    """One final Parquet file that is to be written."""

    key: str
    split: str
    rows: tuple[LogicalRow, ...]
    """By sample hash."""
    blocks: tuple[int, ...]
    """Staged blocks that hold the pixels."""


def plan_parts(
    version: str,
    rows: Sequence[LogicalRow],
    block_of: Mapping[tuple[str, str], int],
    config: PixelConfig,
) -> list[Part]:
    """Cut a version into files of one split each, by sample hash.

    Args:
        block_of: source and SHA-256 of an image → the staged block that holds its pixels.
    """
    size = max(1, PART_BYTES // config.side**2)
    parts = []
    for split in SPLITS:
        inside = sorted((row for row in rows if row.split == split), key=lambda row: row.sample_hash)
        for number, start in enumerate(range(0, len(inside), size)):
            some = tuple(inside[start : start + size])
            blocks = tuple(sorted({block_of[row.source, row.sha256] for row in some}))
            parts.append(Part(key=part_key(version, split, number), split=split, rows=some, blocks=blocks))
    return parts


def stage_block(block: int, rows: Sequence[dict[str, Any]], stage: Stage) -> pa.Table:
    """Fetch, open, decode and scale the images of one block, and stage what came out.

    Args:
        rows: `source`, `sha256`, `label`, `raw_key` and `waived` reasons of each.
    Returns:
        One row an image in the schema `OUTCOME`: a sample hash, or the reason why there is none.
    """
    store = ObjectStore(stage.settings)
    key = stage.key(block)
    if not stage.fresh and store.exists(BUCKET, key):
        return pq.read_table(io.BytesIO(store.get(BUCKET, key)), columns=OUTCOME.names)
    originals = Originals.of(stage.settings)
    with ThreadPoolExecutor(THREADS) as pool:
        outcomes = list(pool.map(lambda row: _convert(row, originals, stage.pixels), rows))
    table = pa.Table.from_pylist(outcomes, schema=STAGED).sort_by("sample_hash")
    store.put(BUCKET, key, _parquet(table, compression="lz4", row_group_size=STAGED_GROUP_ROWS))
    return table.select(OUTCOME.names)


def write_part(part: Part, stage: Stage) -> dict[str, Any]:
    """Gather the pixels of one part, write it, and say what was written.

    Returns:
        `key`, `split`, `rows`, `bytes` and `sha256` of the file.
    """
    store, filesystem = ObjectStore(stage.settings), arrow_filesystem(stage.settings)
    hashes = [row.sample_hash for row in part.rows]
    wanted = {(row.source, row.sha256) for row in part.rows}
    pixels: dict[str, bytes] = {}
    for block in part.blocks:
        staged = pq.read_table(
            store.path(BUCKET, stage.key(block)),
            filesystem=filesystem,
            columns=["source", "sha256", "sample_hash", "pixels"],
            filters=(pc.field("sample_hash") >= hashes[0]) & (pc.field("sample_hash") <= hashes[-1]),
        )
        for row in staged.to_pylist():
            if (row["source"], row["sha256"]) in wanted:
                pixels[row["sample_hash"]] = row["pixels"]
    rows = [{**asdict(row), "pixels": pixels[row.sample_hash]} for row in part.rows]
    blob = _parquet(pa.Table.from_pylist(rows, schema=PART), compression="zstd", row_group_size=1024)
    store.put(BUCKET, part.key, blob)
    return {
        "key": part.key,
        "split": part.split,
        "rows": len(rows),
        "bytes": len(blob),
        "sha256": hashlib.sha256(blob).hexdigest(),
    }


def _convert(row: dict[str, Any], originals: Originals, config: PixelConfig) -> dict[str, Any]:
    """One image: its pixels and hashes, or a reason."""
    outcome = {"source": row["source"], "sha256": row["sha256"]}
    try:
        blob = originals.get(row["raw_key"])
    except FileNotFoundError:
        return {**outcome, "reason": "missing_original", "detail": "its object is gone: ingest it again"}
    except SecretError as error:
        return {**outcome, "reason": "sealed", "detail": str(error)}
    try:
        pixels_HW = to_pixels(blob, config, row["waived"])
    except BadImageError as error:
        originals.put(QUARANTINE, row["sha256"], blob)
        return {**outcome, "reason": error.reason, "detail": str(error)}
    pixels = np.ascontiguousarray(pixels_HW).tobytes()
    pixel_sha256 = hashlib.sha256(pixels).hexdigest()
    identity = sample_hash(pixel_sha256, row["label"])
    return {**outcome, "sample_hash": identity, "pixel_sha256": pixel_sha256, "pixels": pixels}


def _parquet(table: pa.Table, *, compression: str, row_group_size: int) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression=compression, row_group_size=row_group_size)
    return buffer.getvalue()
