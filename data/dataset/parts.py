"""The Parquet files of a dataset version: how its rows are divided among them, and how a worker writes one.

`data.dataset.etl` plans the parts and workers write them from what `data.dataset.staging` staged. Staged pixels
are only a cache: each image is checked against its hash and decoded again where it does not agree. Knows no Ray.
"""

import hashlib
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs
import pyarrow.parquet as pq

from cluster.arrow_objects import ArrowObjects, of_the_store
from cluster.expected import ExpectedError
from data.dataset.rows import LogicalRow, sample_hash
from data.dataset.split import SPLITS
from data.dataset.staging import Stage, convert_all, parquet
from data.dataset.versions import BUCKET, part_key
from data.imaging.preprocess import PixelConfig

PART_BYTES = 32 * 2**20
"""Pixels of one Parquet file, before compression; its writer holds them about four times."""
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
            chosen = tuple(inside[start : start + size])
            blocks = tuple(sorted({block_of[row.source, row.sha256] for row in chosen}))
            images = [(row.source, row.sha256) for row in chosen]
            released = {image: waived[image] for image in images if image in waived}
            key = part_key(version, split, number)
            yield Part(key=key, split=split, rows=chosen, blocks=blocks, waived=released)


def write_part(part: Part, stage: Stage) -> dict[str, Any]:
    """Gather the pixels of one part, write it, and return the manifest's entry of it.

    Returns:
        `key`, `split`, `rows`, `bytes` and `sha256` of the file.
    Raises:
        StagingError: an original gives other pixels than it gave when the block was staged.
    """
    objects = stage.objects()
    wanted = [row.sample_hash for row in part.rows]
    named = hashlib.sha256("\n".join(wanted).encode()).hexdigest()
    receipt = None if stage.fresh else objects.find(BUCKET, stage.receipt_key(part.key))
    if receipt is not None and (written := json.loads(receipt))["of"] == named:
        entry: dict[str, Any] = written["part"]
        if objects.sizes(BUCKET, [part.key]) == {part.key: entry["bytes"]}:
            return entry
    columns = {name: [getattr(row, name) for row in part.rows] for name in PART.names if name != "pixels"}
    columns["pixels"] = _pixels_of(part, stage, objects)
    blob = parquet(pa.Table.from_pydict(columns, schema=PART), compression="zstd", row_group_size=1024)
    objects.put(BUCKET, part.key, blob)
    made = {
        "key": part.key,
        "split": part.split,
        "rows": len(part.rows),
        "bytes": len(blob),
        "sha256": hashlib.sha256(blob).hexdigest(),
    }
    objects.put(BUCKET, stage.receipt_key(part.key), json.dumps({"of": named, "part": made}).encode())
    return made


def _pixels_of(part: Part, stage: Stage, objects: ArrowObjects) -> pa.ChunkedArray:
    """Return the pixels of each row, in the part's order: as staged where they agree with their hash, else new."""
    staged = list(_staged_pixels(part, stage, objects))
    there = pa.chunked_array([hashes for hashes, _ in staged], pa.string())
    made = _made_anew(part, frozenset(there.to_pylist()), stage)
    hashes = pa.chunked_array([*there.chunks, pa.array(list(made), pa.string())])
    pixels = pa.chunked_array(
        [*(pixels for _, pixels in staged), pa.array(list(made.values()), pa.binary())], pa.binary()
    )
    wanted = pa.array([row.sample_hash for row in part.rows], pa.string())
    return pixels.take(pc.index_in(wanted, value_set=hashes.combine_chunks()))


def _staged_pixels(part: Part, stage: Stage, objects: ArrowObjects) -> Iterator[tuple[pa.Array, pa.Array]]:
    """Yield sample hashes and pixels of those rows whose staged pixels are there and agree with their hash.

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
            agreed = batch.take(pa.array(sound, pa.int32()))
            yield agreed["sample_hash"], agreed["pixels"]


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
    return table.to_batches()


def _made_anew(part: Part, there: Collection[str], stage: Stage) -> dict[str, bytes]:
    """Decode the originals of rows whose staged pixels are gone or damaged: sample hash → pixels."""
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
    outcomes = convert_all(asked, stage)
    for row, outcome in zip(rows, outcomes, strict=True):
        if outcome.get("sample_hash") != row.sample_hash:
            why = outcome.get("reason") or "other pixels"
            raise StagingError(
                f"an original of source {row.source} gave pixels when its block was staged and gives {why} now: "
                "run the same command with --fresh"
            )
    return {outcome["sample_hash"]: outcome["pixels"] for outcome in outcomes}
