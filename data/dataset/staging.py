"""Stage one block of catalog rows as pixels, in a worker of `etl`.

A staged block is two objects: the pixels of its good images, and then its outcome, hashes and reasons, whose
presence says that the block is done. Which rows are in a block follows from the inputs alone, so a run that was cut
short finds its finished blocks again. Staged pixels are only a cache: what goes into a part is checked against its
hash, and made anew where it does not agree. Knows no Ray.
"""

import hashlib
import io
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.fs
import pyarrow.parquet as pq

from cluster.arrow_objects import ArrowObjects
from cluster.patience import PATIENCE_S
from cluster.secrets import SecretError
from cluster.settings import Settings
from data.catalog.originals import QUARANTINE, Originals
from data.dataset.near_duplicates import fingerprint
from data.dataset.rows import sample_hash
from data.dataset.versions import BUCKET
from data.imaging.preprocess import BadImageError, PixelConfig
from data.sandbox.decoder import process_decoder
from data.taxonomy import taxonomy

STAGING = "_staging"
"""Where everything that is staged lies, in the bucket of datasets."""
ABANDONED_AFTER = timedelta(days=7)
"""Staged pixels are of patients: a run that was cut short is either finished within this time or begun anew."""
THREADS = 2
"""A block's images in flight: one decodes while the others wait for the store."""
STAGED_GROUP_ROWS = 16
"""A part that wants few rows of a block reads little more than those."""
DOUBTED = frozenset({"missing_original", "sealed"})
"""Reasons that a store which is just starting, or a torn answer, can give for an image that is fine."""
SECOND_LOOKS_S = (1.0, 5.0)
"""Pauses after which doubted images are read again. What is still missing then is missing."""
OUTCOME = pa.schema(
    [(name, pa.string()) for name in ("source", "sha256", "sample_hash", "pixel_sha256", "reason", "detail")]
    + [("fingerprint", pa.binary())]
)
STAGED = pa.schema([("sample_hash", pa.string()), ("pixel_sha256", pa.string()), ("pixels", pa.binary())])


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Where a run stages, and how; travels to the workers."""

    settings: Settings
    prefix: str
    """Keys of all that is staged begin with it."""
    pixels: PixelConfig
    fresh: bool
    """True when what is staged already is computed again."""

    def pixels_key(self, block: int) -> str:
        return f"{self.prefix}/{block:06d}.pixels.parquet"

    def outcome_key(self, block: int) -> str:
        """Return the key of a block's outcome, written when the block is done."""
        return f"{self.prefix}/{block:06d}.parquet"

    def receipt_key(self, part_key: str) -> str:
        """Return the key of the object that says that a part is written."""
        return f"{self.prefix}/{part_key}.json"

    def objects(self) -> ArrowObjects:
        return ArrowObjects.of(self.settings, patience_s=PATIENCE_S)

    def originals(self) -> Originals:
        return Originals.of(self.settings, patience_s=PATIENCE_S)


def abandoned(objects: ArrowObjects, *, now: datetime) -> list[str]:
    """List the keys that unfinished runs have staged and not written to for `ABANDONED_AFTER`."""
    root = objects.path(BUCKET, STAGING)
    selector = pyarrow.fs.FileSelector(root, recursive=True, allow_not_found=True)
    listed = objects.ask("list what is staged", lambda: objects.filesystem.get_file_info(selector))
    files = [info for info in listed if info.type == pyarrow.fs.FileType.File]
    runs = [info.path.removeprefix(root + "/").split("/")[0] for info in files]
    latest: dict[str, datetime] = {}
    for run, file in zip(runs, files, strict=True):
        latest[run] = max(latest.get(run, file.mtime), file.mtime)
    return [
        STAGING + file.path.removeprefix(root)
        for run, file in zip(runs, files, strict=True)
        if now - latest[run] > ABANDONED_AFTER
    ]


def stage_block(block: int, rows: Sequence[dict[str, Any]], stage: Stage) -> tuple[pa.Table, bool]:
    """Fetch, open, decode and scale the images of one block, and stage what came out.

    Args:
        rows: `source`, `sha256`, `label`, `view`, `raw_key` and `waived` reasons of each.
    Returns:
        One row an image, in the order of `rows`, in the schema `OUTCOME`: a sample hash, or the reason why there is
        none; and whether the block was staged already.
    """
    objects = stage.objects()
    done = None if stage.fresh else objects.find(BUCKET, stage.outcome_key(block))
    if done is not None and (table := _readable(done)) is not None:
        return table, True
    outcomes = convert_all(rows, stage)
    good = pa.Table.from_pylist([outcome for outcome in outcomes if "pixels" in outcome], schema=STAGED)
    pixels = parquet(good.sort_by("sample_hash"), compression="lz4", row_group_size=STAGED_GROUP_ROWS)
    objects.put(BUCKET, stage.pixels_key(block), pixels)
    table = pa.Table.from_pylist(outcomes, schema=OUTCOME)
    objects.put(
        BUCKET, stage.outcome_key(block), parquet(table, compression="zstd", row_group_size=len(table))
    )
    return table, False


def convert_all(rows: Sequence[dict[str, Any]], stage: Stage) -> list[dict[str, Any]]:
    """Convert all images of a block; those in doubt are converted again when the rest is done."""
    originals = stage.originals()
    with ThreadPoolExecutor(THREADS) as pool:
        outcomes = list(pool.map(lambda row: _convert(row, originals, stage.pixels), rows))
        for pause_s in SECOND_LOOKS_S:
            doubted = [nth for nth, outcome in enumerate(outcomes) if outcome.get("reason") in DOUBTED]
            if not doubted:
                break
            time.sleep(pause_s)
            again = pool.map(lambda nth: _convert(rows[nth], originals, stage.pixels), doubted)
            for nth, outcome in zip(doubted, again, strict=True):
                outcomes[nth] = outcome
    return outcomes


def _convert(row: dict[str, Any], originals: Originals, config: PixelConfig) -> dict[str, Any]:
    """Return the pixels and hashes of one image, or a reason."""
    outcome = {"source": row["source"], "sha256": row["sha256"]}
    try:
        blob = originals.get(row["raw_key"])
    except FileNotFoundError:
        return {**outcome, "reason": "missing_original", "detail": "its object is gone: ingest it again"}
    except SecretError as error:
        return {**outcome, "reason": "sealed", "detail": str(error)}
    try:
        pixels_HW = process_decoder().to_pixels(
            blob, config, view=row["view"], region=taxonomy()[row["label"]].region, waived=row["waived"]
        )
    except BadImageError as error:
        originals.put(QUARANTINE, row["sha256"], blob)
        return {**outcome, "reason": error.reason, "detail": str(error)}
    pixels = np.ascontiguousarray(pixels_HW).tobytes()
    pixel_sha256 = hashlib.sha256(pixels).hexdigest()
    identity = sample_hash(pixel_sha256, row["label"])
    hashes = {"sample_hash": identity, "pixel_sha256": pixel_sha256, "fingerprint": fingerprint(pixels_HW)}
    return {**outcome, **hashes, "pixels": pixels}


def _readable(blob: bytes) -> pa.Table | None:
    """Read a staged outcome, None when it is torn or of an older layout: the block is then computed again."""
    try:
        table = pq.read_table(io.BytesIO(blob))
    except (pa.ArrowInvalid, OSError):
        return None
    return table if table.schema.equals(OUTCOME) else None


def parquet(table: pa.Table, *, compression: str, row_group_size: int) -> pa.Buffer:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression=compression, row_group_size=max(1, row_group_size))
    return sink.getvalue()
