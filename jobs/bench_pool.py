"""The peer of the ETL benchmark: a process pool written by hand for the same duties, and nothing more.

Each worker reads sealed originals from S3, opens, decodes, checks and scales them, hashes, and writes one Parquet
file a block: no split, no order, no second pass, no recovery. It calls the same transform, whose decoder was the
quickest of those at hand (docs/experiments.md), so that it is the ceiling of what a cluster can reach.
"""

import hashlib
import multiprocessing
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.pool import Pool
from typing import Any

import pyarrow as pa
import pyarrow.fs
import pyarrow.parquet as pq

from cluster.objects import arrow_filesystem
from cluster.secrets import read_key, unseal
from cluster.settings import Settings
from data.preprocess import PixelConfig, to_pixels

THREADS = 3
_here: dict[str, Any] = {}
"""What one process of the pool keeps between blocks."""


def open_pool(settings: Settings, config: PixelConfig) -> Pool:
    """One fresh process a core."""
    context = multiprocessing.get_context("spawn")
    return context.Pool(len(os.sched_getaffinity(0)), initializer=_begin, initargs=(settings, config))


def _begin(settings: Settings, config: PixelConfig) -> None:
    _here["settings"], _here["config"] = settings, config
    _here["filesystem"] = arrow_filesystem(settings)
    _here["key"] = read_key(settings.encryption_key_path)
    _here["threads"] = ThreadPoolExecutor(THREADS)


def one_block(job: tuple[str, Sequence[dict[str, str]]]) -> list[str]:
    """Make one block; returns its sample hashes.

    Args:
        job: key of the file to write, and its rows.
    """
    key, rows = job
    filesystem: pyarrow.fs.FileSystem = _here["filesystem"]
    settings: Settings = _here["settings"]
    made = list(_here["threads"].map(_one, rows))
    with filesystem.open_output_stream(f"{settings.bucket('datasets')}/{key}") as stream:
        pq.write_table(pa.Table.from_pylist(made), stream, compression="zstd")
    return [one["sample_hash"] for one in made]


def _one(row: dict[str, str]) -> dict[str, Any]:
    settings: Settings = _here["settings"]
    path = f"{settings.bucket('raw')}/{row['raw_key']}"
    with _here["filesystem"].open_input_stream(path, buffer_size=0) as stream:
        sealed = stream.readall()
    pixels = to_pixels(
        unseal(sealed, _here["key"], context=f"raw/{row['raw_key']}".encode()), _here["config"]
    )
    blob = pixels.tobytes()
    digest = hashlib.sha256(blob).hexdigest()
    sample = hashlib.sha256(f"{digest}:{row['label']}".encode()).hexdigest()
    return {"sample_hash": sample, "label": row["label"], "sha256": row["sha256"], "pixels": blob}
