"""What the workers of `etl` do: one block of catalog rows to staged pixels, staged pixels to one final part.

A staged block is two objects: the pixels of its good images, and then its outcome, hashes and reasons, whose
presence says that the block is done. Which rows are in a block follows from the inputs alone, so a run that was cut
short finds its finished blocks again. Staged pixels are only a cache: what goes into a part is checked against its
hash, and made anew where it does not agree. Knows no Ray.
"""

import hashlib
import io
import json
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs
import pyarrow.parquet as pq

from cluster.arrow_objects import ArrowObjects, of_the_store
from cluster.expected import ExpectedError
from cluster.patience import PATIENCE_S
from cluster.secrets import SecretError
from cluster.settings import Settings
from data.logical import LogicalRow, sample_hash
from data.near_duplicates import fingerprint
from data.originals import QUARANTINE, Originals
from data.preprocess import BadImageError, PixelConfig
from data.sandbox import process_decoder
from data.split import SPLITS
from data.taxonomy import taxonomy
from data.versions import BUCKET, part_key

STAGING = "_staging"
"""Where everything that is staged lies, in the bucket of datasets."""
ABANDONED_AFTER = timedelta(days=7)
"""Staged pixels are of patients: a run that was cut short is either finished within this time or begun anew."""
PART_BYTES = 32 * 2**20
"""Pixels of one Parquet file, before compression: who writes one holds them some four times over."""
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


class StagingError(ExpectedError):
    """An image that gave pixels a moment ago gives none or others now; one line."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Where a run stages, and how; travels to the workers."""

    settings: Settings
    prefix: str
    """Keys of all that is staged begin with it."""
    pixels: PixelConfig
    fresh: bool
    """Whether what is staged already is computed again."""

    def pixels_key(self, block: int) -> str:
        return f"{self.prefix}/{block:06d}.pixels.parquet"

    def outcome_key(self, block: int) -> str:
        """Written when the block is done."""
        return f"{self.prefix}/{block:06d}.parquet"

    def receipt_key(self, part: "Part") -> str:
        """Written when the part is."""
        return f"{self.prefix}/{part.key}.json"

    def objects(self) -> ArrowObjects:
        return ArrowObjects.of(self.settings, patience_s=PATIENCE_S)

    def originals(self) -> Originals:
        return Originals.of(self.settings, patience_s=PATIENCE_S)


@dataclass(frozen=True, kw_only=True)
class Part:
    """One final Parquet file that is to be written."""

    key: str
    split: str
    rows: tuple[LogicalRow, ...]
    """By sample hash."""
    blocks: tuple[int, ...]
    """Staged blocks that hold the pixels."""
    waived: Mapping[tuple[str, str], tuple[str, ...]] = field(default_factory=dict)
    """Source and SHA-256 of the released images among the rows → reasons that do not keep them out."""


def abandoned(objects: ArrowObjects, *, now: datetime) -> list[str]:
    """Keys of what runs have staged that nobody finished: nothing of it was written for `ABANDONED_AFTER`."""
    root = objects.path(BUCKET, STAGING)
    selector = pyarrow.fs.FileSelector(root, recursive=True, allow_not_found=True)
    listed = objects.ask("list what is staged", lambda: objects.filesystem.get_file_info(selector))
    files = [one for one in listed if one.type == pyarrow.fs.FileType.File]
    runs = [one.path.removeprefix(root + "/").split("/")[0] for one in files]
    latest: dict[str, datetime] = {}
    for run, file in zip(runs, files, strict=True):
        latest[run] = max(latest.get(run, file.mtime), file.mtime)
    return [
        STAGING + file.path.removeprefix(root)
        for run, file in zip(runs, files, strict=True)
        if now - latest[run] > ABANDONED_AFTER
    ]


def plan_parts(
    version: str,
    rows: Sequence[LogicalRow],
    block_of: Mapping[tuple[str, str], int],
    config: PixelConfig,
    waived: Mapping[tuple[str, str], tuple[str, ...]],
) -> Iterator[Part]:
    """Cut a version into files of one split each, by sample hash.

    Args:
        block_of: source and SHA-256 of an image → the staged block that holds its pixels.
        waived: source and SHA-256 of a released image → reasons that do not keep it out.
    """
    size = max(1, PART_BYTES // config.side**2)
    for split in SPLITS:
        inside = sorted((row for row in rows if row.split == split), key=lambda row: row.sample_hash)
        for number, start in enumerate(range(0, len(inside), size)):
            some = tuple(inside[start : start + size])
            blocks = tuple(sorted({block_of[row.source, row.sha256] for row in some}))
            images = [(row.source, row.sha256) for row in some]
            released = {image: waived[image] for image in images if image in waived}
            key = part_key(version, split, number)
            yield Part(key=key, split=split, rows=some, blocks=blocks, waived=released)


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
    outcomes = _convert_all(rows, stage)
    good = pa.Table.from_pylist([one for one in outcomes if "pixels" in one], schema=STAGED)
    pixels = _parquet(good.sort_by("sample_hash"), compression="lz4", row_group_size=STAGED_GROUP_ROWS)
    objects.put(BUCKET, stage.pixels_key(block), pixels)
    table = pa.Table.from_pylist(outcomes, schema=OUTCOME)
    objects.put(
        BUCKET, stage.outcome_key(block), _parquet(table, compression="zstd", row_group_size=len(table))
    )
    return table, False


def write_part(part: Part, stage: Stage) -> dict[str, Any]:
    """Gather the pixels of one part, write it, and say what was written.

    Returns:
        `key`, `split`, `rows`, `bytes` and `sha256` of the file.
    Raises:
        StagingError: an original gives other pixels than it gave when the block was staged.
    """
    objects = stage.objects()
    wanted = [row.sample_hash for row in part.rows]
    named = hashlib.sha256("\n".join(wanted).encode()).hexdigest()
    receipt = None if stage.fresh else objects.find(BUCKET, stage.receipt_key(part))
    if receipt is not None and (written := json.loads(receipt))["of"] == named:
        found: dict[str, Any] = written["part"]
        if objects.sizes(BUCKET, [part.key]) == {part.key: found["bytes"]}:
            return found
    columns = {name: [getattr(row, name) for row in part.rows] for name in PART.names if name != "pixels"}
    columns["pixels"] = _pixels_of(part, stage, objects)
    blob = _parquet(pa.Table.from_pydict(columns, schema=PART), compression="zstd", row_group_size=1024)
    objects.put(BUCKET, part.key, blob)
    made = {
        "key": part.key,
        "split": part.split,
        "rows": len(part.rows),
        "bytes": len(blob),
        "sha256": hashlib.sha256(blob).hexdigest(),
    }
    objects.put(BUCKET, stage.receipt_key(part), json.dumps({"of": named, "part": made}).encode())
    return made


def _convert_all(rows: Sequence[dict[str, Any]], stage: Stage) -> list[dict[str, Any]]:
    """What came of each image; those in doubt are looked at again when the rest is done."""
    originals = stage.originals()
    with ThreadPoolExecutor(THREADS) as pool:
        outcomes = list(pool.map(lambda row: _convert(row, originals, stage.pixels), rows))
        for pause_s in SECOND_LOOKS_S:
            doubted = [nth for nth, one in enumerate(outcomes) if one.get("reason") in DOUBTED]
            if not doubted:
                break
            time.sleep(pause_s)
            again = pool.map(lambda nth: _convert(rows[nth], originals, stage.pixels), doubted)
            for nth, outcome in zip(doubted, again, strict=True):
                outcomes[nth] = outcome
    return outcomes


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
        pixels_HW = process_decoder().to_pixels(
            blob, config, view=row["view"], region=taxonomy()[row["label"]].region, waived=row["waived"]
        )
    except BadImageError as error:
        originals.put(QUARANTINE, row["sha256"], blob)
        return {**outcome, "reason": error.reason, "detail": str(error)}
    pixels = np.ascontiguousarray(pixels_HW).tobytes()
    pixel_sha256 = hashlib.sha256(pixels).hexdigest()
    identity = sample_hash(pixel_sha256, row["label"])
    found = {"sample_hash": identity, "pixel_sha256": pixel_sha256, "fingerprint": fingerprint(pixels_HW)}
    return {**outcome, **found, "pixels": pixels}


def _pixels_of(part: Part, stage: Stage, objects: ArrowObjects) -> pa.ChunkedArray:
    """The pixels of each row of the part, in its order: as staged where they agree with their hash, else made anew."""
    staged = list(_staged_pixels(part, stage, objects))
    there = pa.chunked_array([hashes for hashes, _ in staged], pa.string())
    made = _made_anew(part, frozenset(there.to_pylist()), stage)
    found = pa.chunked_array([*there.chunks, pa.array(list(made), pa.string())])
    pixels = pa.chunked_array(
        [*(some for _, some in staged), pa.array(list(made.values()), pa.binary())], pa.binary()
    )
    wanted = pa.array([row.sample_hash for row in part.rows], pa.string())
    return pixels.take(pc.index_in(wanted, value_set=found.combine_chunks()))


def _staged_pixels(part: Part, stage: Stage, objects: ArrowObjects) -> Iterator[tuple[pa.Array, pa.Array]]:
    """Sample hashes and pixels, of those rows of the part whose staged pixels are there and agree with their hash.

    They stay in Arrow's memory: as Python's bytes each would be copied twice.
    """
    label_of = {row.sample_hash: row.label for row in part.rows}
    hashes = [row.sample_hash for row in part.rows]
    within = (pc.field("sample_hash") >= hashes[0]) & (pc.field("sample_hash") <= hashes[-1])
    for block in part.blocks:
        for batch in _read_staged(stage.pixels_key(block), within, objects):
            sound = []
            for nth, name in enumerate(batch["sample_hash"].to_pylist()):
                label = label_of.get(name)
                if label is not None and _agrees(name, batch["pixels"][nth].as_buffer(), label):
                    sound.append(nth)
                    del label_of[name]
            kept = batch.take(pa.array(sound, pa.int32()))
            yield kept["sample_hash"], kept["pixels"]


def _agrees(name: str, pixels: pa.Buffer | None, label: str) -> bool:
    return pixels is not None and sample_hash(hashlib.sha256(pixels).hexdigest(), label) == name


def _read_staged(key: str, within: pc.Expression, objects: ArrowObjects) -> Sequence[pa.RecordBatch]:
    def read() -> pa.Table:
        try:
            return pq.read_table(
                objects.path(BUCKET, key),
                filesystem=objects.filesystem,
                columns=["sample_hash", "pixels"],
                filters=within,
            )
        except OSError as error:
            if isinstance(error, FileNotFoundError) or of_the_store(error):
                raise
            raise pa.ArrowInvalid("not the Parquet file that was staged") from error

    try:
        table = objects.ask(f"read from the bucket {objects.settings.bucket(BUCKET)}", read)
    except (FileNotFoundError, pa.ArrowInvalid):  # swept by another run, or torn
        return []
    batches: list[pa.RecordBatch] = table.to_batches()
    return batches


def _made_anew(part: Part, there: Collection[str], stage: Stage) -> dict[str, bytes]:
    """Sample hash → pixels from the originals, for rows whose staged pixels are gone or damaged."""
    rows = [row for row in part.rows if row.sample_hash not in there]
    if not rows:
        return {}
    originals = stage.originals()
    asked = [
        {
            "source": row.source,
            "sha256": row.sha256,
            "label": row.label,
            "view": row.view,
            "raw_key": originals.key_of(row.sha256),
            "waived": part.waived.get((row.source, row.sha256), ()),
        }
        for row in rows
    ]
    outcomes = _convert_all(asked, stage)
    for row, outcome in zip(rows, outcomes, strict=True):
        if outcome.get("sample_hash") != row.sample_hash:
            why = outcome.get("reason") or "other pixels"
            raise StagingError(
                f"an original of source {row.source} gave pixels when its block was staged and gives {why} now: "
                "run the same command with --fresh"
            )
    return {outcome["sample_hash"]: outcome["pixels"] for outcome in outcomes}


def _readable(blob: bytes) -> pa.Table | None:
    """A staged outcome, None when it is torn or of an older layout: the block is then computed anew."""
    try:
        table = pq.read_table(io.BytesIO(blob))
    except (pa.ArrowInvalid, OSError):
        return None
    return table if table.schema.equals(OUTCOME) else None


def _parquet(table: pa.Table, *, compression: str, row_group_size: int) -> pa.Buffer:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression=compression, row_group_size=max(1, row_group_size))
    return sink.getvalue()
