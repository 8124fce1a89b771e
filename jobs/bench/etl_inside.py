"""Runs inside the platform of an ETL benchmark: our ETL and one of its two peers in turns, a job's line last.

`jobs.bench.etl` starts it with the platform's environment, so that this process is the driver of ours and the parent
of the peer's pool. Each side has run once, unmeasured, before the first measurement, with workers that are warm.
"""

import functools
import hashlib
import io
import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import psutil
import pyarrow.parquet as pq
import ray
import ray.data

from cluster.embedded.home import Home
from cluster.embedded.process import marked
from cluster.objects import ObjectStore, arrow_filesystem
from cluster.settings import Settings
from data.catalog import tables
from data.catalog.originals import Originals
from data.catalog.tables import Sample
from data.dataset import etl, versions
from data.dataset.etl import EtlConfig
from data.dataset.near_duplicates import fingerprint
from data.imaging import quality
from data.imaging.burned_in_text import mask_text
from data.imaging.preprocess import Decoded, PixelConfig, scale
from data.sandbox.decoder import process_decoder
from jobs.bench import process_pool
from jobs.runtime import entry
from jobs.runtime.throwaway_platform import Watch, at_work, idle_share

ROUNDS = 3
PIXELS = PixelConfig(side=224)
TOGETHER_S = 5.0
PLAIN = "_bench/plain"
MADE = "_bench/made"


@dataclass(frozen=True, kw_only=True)
class Side:
    name: str
    work: Callable[[], object]
    before: Callable[[], None]
    """Not measured."""
    processes: Callable[[], list[psutil.Process]]


def forget(store: ObjectStore) -> None:
    """Remove every version, so that the next run writes one."""
    keys = store.keys("datasets", "")
    store.delete("datasets", [key for key in keys if not key.startswith("_bench/plain")])


def run_ours(settings: Settings) -> str:
    """Make the dataset; returns its version."""
    return etl.run(settings, EtlConfig(pixels=PIXELS), fresh=True).version


def warm_up() -> None:
    """Let every worker of Ray import and start what it needs, as the workers of the pool have before they are measured.

    Which of its idle workers Ray takes for a run is its own choice.
    """
    workers = int(ray.cluster_resources()["CPU"])
    ray.get([_ready.remote() for _ in range(workers)])


@ray.remote(num_cpus=1)
def _ready() -> None:
    """Occupy a worker until all others have begun too."""
    process_decoder()
    time.sleep(TOGETHER_S)


def hashes_of(store: ObjectStore, version: str) -> set[str]:
    parts = [store.get("datasets", part["key"]) for part in versions.manifest(store, version)["parts"]]
    columns = [pq.read_table(io.BytesIO(part), columns=["sample_hash"])["sample_hash"] for part in parts]
    return {digest for column in columns for digest in column.to_pylist()}


def pooled(pool: Any, samples: list[Sample]) -> set[str]:
    size = max(1, min(etl.SMALLEST_BLOCK_ROWS, len(samples) // (2 * pool._processes)))
    names = ("raw_key", "label", "view", "sha256", "source")
    rows = [{name: getattr(sample, name) for name in names} for sample in samples]
    starts = range(0, len(rows), size)
    blocks = [(f"{MADE}/{start:06d}.parquet", rows[start : start + size]) for start in starts]
    return set().union(*pool.imap_unordered(process_pool.make_block, blocks))


def chained(settings: Settings) -> None:
    """Mask, check, scale and hash unsealed files the straightforward way with Ray Data."""

    def work(batch: dict[str, np.ndarray]) -> dict[str, Any]:
        cv2.setNumThreads(1)
        scaled_NHW = [_judged(shown_HW) for shown_HW in batch["image"]]
        pixels = [scaled_HW.tobytes() for scaled_HW in scaled_NHW]
        return {
            "path": batch["path"],
            "sha256": np.array([hashlib.sha256(blob).hexdigest() for blob in pixels]),
            "fingerprint": np.array([fingerprint(scaled_HW) for scaled_HW in scaled_NHW]),
            "pixels": np.array(pixels, dtype=object),
        }

    filesystem, bucket = arrow_filesystem(settings), settings.bucket("datasets")
    dataset = ray.data.read_images(f"{bucket}/{PLAIN}", filesystem=filesystem, mode="L", include_paths=True)
    dataset.map_batches(work, batch_size=64).write_parquet(f"{bucket}/{MADE}", filesystem=filesystem)


def _judged(shown_HW: np.ndarray) -> np.ndarray:
    height, width = shown_HW.shape
    decoded = Decoded(shown_HW=mask_text(shown_HW), kind="jpeg", width=width, height=height)
    quality.check(decoded, region="chest")
    return scale(decoded.shown_HW, PIXELS)


def copy_plain(settings: Settings, samples: list[Sample]) -> None:
    originals, store = Originals.of(settings), ObjectStore(settings)
    for sample in samples:
        store.put("datasets", f"{PLAIN}/{sample.sha256}.jpg", originals.get(sample.raw_key))


def median_rates(sides: list[Side], images: int) -> dict[str, float]:
    """Measure images a CPU-second, the median of each side's rounds; all processes of a side count, its drivers too,
    less what they use when nothing runs.
    """
    rates: dict[str, list[float]] = {side.name: [] for side in sides}
    for nth in range(1 + ROUNDS):
        for side in sides:
            side.before()
            idle = idle_share(side.processes)
            with Watch(side.processes) as watch:
                side.work()
            rate = images / (watch.cpu_s - idle * watch.wall_s)
            if nth:
                rates[side.name].append(rate)
            sys.stderr.write(f"{side.name}: {rate:.1f} images/CPU-s, {watch.wall_s:.1f} s\n")
    return {name: statistics.median(each) for name, each in rates.items()}


def main(kind: str) -> dict[str, float]:
    settings, home = Settings.from_env(), Home.from_env(os.environ)
    entry.join_ray(settings.ray_address)
    with tables.opened(settings) as connection:
        samples = tables.samples(connection, metadata=False)
    store, here = ObjectStore(settings), psutil.Process()

    clear = functools.partial(forget, store)

    def of_ray() -> list[psutil.Process]:
        return [here, *(process for process in marked(home.id, "ray") if at_work(process))]

    def before_ours() -> None:
        clear()
        warm_up()

    ours = Side(name="ours", work=lambda: run_ours(settings), before=before_ours, processes=of_ray)
    if kind == "chain":
        copy_plain(settings, samples)
        chain = Side(name="peer", work=lambda: chained(settings), before=clear, processes=of_ray)
        return median_rates([ours, chain], len(samples))
    with process_pool.open_pool(settings, PIXELS) as pool:
        workers = [psutil.Process(worker.pid) for worker in pool._pool]  # type: ignore[attr-defined]
        peer = Side(
            name="peer", work=lambda: pooled(pool, samples), before=clear, processes=lambda: [here, *workers]
        )
        clear()
        if hashes_of(store, run_ours(settings)) != pooled(pool, samples):
            raise entry.JobError("the two sides made different samples")
        return median_rates([ours, peer], len(samples))


if __name__ == "__main__":
    entry.run("bench_etl", lambda: main(sys.argv[1]))
