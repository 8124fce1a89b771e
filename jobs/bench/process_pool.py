"""The peer of the ETL benchmark: a process pool written by hand for the same duties, and nothing more.

Each worker reads sealed originals from S3, opens, decodes, masks, checks, scales and fingerprints them, hashes, and
writes one Parquet file a block: no child processes, no split, no order, no second pass, no recovery. It calls the same
functions with the same allocator settings, one thread of OpenCV, and the decoder that was within a tenth of the
quickest at hand (docs/experiments.md), so that it is the ceiling of what a cluster can reach.
"""

import hashlib
import multiprocessing
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from multiprocessing.pool import Pool
from typing import Any

import cv2
import pyarrow as pa
import pyarrow.fs
import pyarrow.parquet as pq

from cluster.objects import arrow_filesystem
from cluster.secrets import read_key, unseal
from cluster.settings import Settings
from data.dataset.near_duplicates import fingerprint
from data.imaging import quality
from data.imaging.preprocess import PixelConfig, decode, scale
from data.sandbox.process import ENVIRONMENT
from data.taxonomy import taxonomy

THREADS = 2
_here: dict[str, Any] = {}
"""What one process of the pool keeps between blocks."""


@contextmanager
def open_pool(settings: Settings, config: PixelConfig) -> Iterator[Pool]:
    """Open a pool of one process a core, with our decoder processes' allocator settings: the default costs a third."""
    context = multiprocessing.get_context("spawn")
    before = os.environ.copy()
    os.environ.update(ENVIRONMENT)
    try:
        pool = context.Pool(len(os.sched_getaffinity(0)), initializer=_begin, initargs=(settings, config))
    finally:
        os.environ.clear()
        os.environ.update(before)
    with pool:
        yield pool


def _begin(settings: Settings, config: PixelConfig) -> None:
    cv2.setNumThreads(1)
    _here["settings"], _here["config"] = settings, config
    _here["filesystem"] = arrow_filesystem(settings)
    _here["key"] = read_key(settings.encryption_key_path)
    _here["threads"] = ThreadPoolExecutor(THREADS)


def make_block(block: tuple[str, Sequence[dict[str, str]]]) -> list[str]:
    """Make one block; returns its sample hashes.

    Args:
        block: key of the file to write, and its rows.
    """
    key, rows = block
    filesystem: pyarrow.fs.FileSystem = _here["filesystem"]
    settings: Settings = _here["settings"]
    samples = list(_here["threads"].map(_sample, rows))
    with filesystem.open_output_stream(f"{settings.bucket('datasets')}/{key}") as stream:
        pq.write_table(pa.Table.from_pylist(samples), stream, compression="zstd")
    return [sample["sample_hash"] for sample in samples]


def _sample(row: dict[str, str]) -> dict[str, Any]:
    settings: Settings = _here["settings"]
    path = f"{settings.bucket('raw')}/{row['raw_key']}"
    with _here["filesystem"].open_input_stream(path, buffer_size=0) as stream:
        sealed = stream.readall()
    blob = unseal(sealed, _here["key"], context=f"raw/{row['raw_key']}".encode())
    region = taxonomy()[row["label"]].region
    shown_HW = quality.judged(blob, decode, view=row["view"], region=region).shown_HW
    pixels_HW = scale(shown_HW, _here["config"])
    pixels = pixels_HW.tobytes()
    digest = hashlib.sha256(pixels).hexdigest()
    return {
        "sample_hash": hashlib.sha256(f"{digest}:{row['label']}".encode()).hexdigest(),
        "label": row["label"],
        "sha256": row["sha256"],
        "fingerprint": fingerprint(pixels_HW),
        "pixels": pixels,
    }
