"""The ETL benchmarks: CPU time against a hand-written pool and a plain chain, memory, first block, overhead of nodes.

Each starts a platform of its own. `jobs.bench.etl_inside` runs inside it; the peer is `jobs.bench.process_pool`.
"""

import functools
import json
import sys
import time

from cluster import progress
from cluster.settings import PROJECT_ROOT
from jobs.bench import corpus
from jobs.bench.corpus import Draw
from jobs.bench.figure import Figure
from jobs.runtime.entry import JobError
from jobs.runtime.throwaway_platform import OwnPlatform, Watch, own_platform

IMAGES = {"jpeg": 3000, "dicom": 1200, "chain": 1500}
"""Enough for the rate of a long run: a worker that has not decoded yet costs as much as a hundred images."""
DRAWN: dict[str, Draw] = {
    "jpeg": corpus.jpeg,
    "dicom": corpus.dicom,
    "chain": corpus.jpeg,
    "small": corpus.small_jpeg,
}
FEW, MANY = 2_000, 20_000
FIRST_BLOCK_IMAGES = 2_800
NODES = (1, 2, 4, 8)
POOL = "process pool, same duties"
SOURCE = "bench"


@functools.cache
def rates(kind: str) -> tuple[float, float]:
    """Images a CPU-second, ours and the peer's."""
    with own_platform() as platform:
        corpus.store(platform.settings, SOURCE, DRAWN[kind], IMAGES[kind])
        found = json.loads(platform.run("jobs.bench.etl_inside", kind))
    return found["ours"], found["peer"]


def etl_vs_process_pool_jpeg() -> Figure:
    """JPEG of 1,024 pixels."""
    return Figure.of("etl_vs_process_pool_jpeg", *rates("jpeg"), POOL, "images a CPU-second")


def etl_vs_process_pool_dicom() -> Figure:
    """12-bit DICOM of 1,024 pixels."""
    return Figure.of("etl_vs_process_pool_dicom", *rates("dicom"), POOL, "images a CPU-second")


def etl_vs_process_pool() -> Figure:
    """The worse of the two."""
    kind = min(("jpeg", "dicom"), key=lambda kind: rates(kind)[0] / rates(kind)[1])
    return Figure.of("etl_vs_process_pool", *rates(kind), f"{POOL}; {kind}", "images a CPU-second")


def etl_vs_read_images() -> Figure:
    """JPEG of 1,024 pixels, sealed for us and plain for the peer, which masks, checks and scales them alike, in the
    workers themselves, and neither groups, splits nor orders them.
    """
    chain = "ray.data.read_images, map_batches of the same duties, write_parquet"
    return Figure.of("etl_vs_read_images", *rates("chain"), chain, "images a CPU-second")


def peak_mib(images: int) -> float:
    """The most memory of the whole platform while ETL makes a dataset of so many small images."""
    with own_platform() as platform:
        corpus.store(platform.settings, SOURCE, DRAWN["small"], images)
        with Watch(platform.processes, interval_s=1.0, memory=True) as watch:
            platform.run("jobs.etl", "--etl.pixels.side", "96")
    return watch.peak_bytes / 2**20


def etl_memory() -> Figure:
    """At 20,000 images, beside that at 2,000."""
    return Figure.of(
        "etl_memory",
        peak_mib(MANY),
        peak_mib(FEW),
        f"the same with {FEW} images",
        "MiB, peak of all processes",
    )


def etl_first_block() -> Figure:
    """From the submission of the job to the first block in the store, on a platform that has just started."""
    with own_platform() as platform:
        corpus.store(platform.settings, SOURCE, DRAWN["small"], FIRST_BLOCK_IMAGES)
        started_at = time.monotonic()
        begun_s, first_s = _first_block(platform, started_at)
    sys.stderr.write(f"ETL began after {begun_s:.1f} s, its first block was staged after {first_s:.1f} s\n")
    return Figure.of("etl_first_block", first_s, 1.0, "a second", "s from submission")


def _first_block(platform: OwnPlatform, started_at: float) -> tuple[float, float]:
    """Seconds until ETL says its first word, and until it has staged something."""
    job = platform.start("jobs.bench.submit", "python -m jobs.etl --etl.pixels.side 96")
    begun_s = first_s = 0.0
    assert job.stdout is not None
    for line in job.stdout:
        step = progress.parse(line)
        if step is not None and step.stage == "etl":
            begun_s = begun_s or time.monotonic() - started_at
            if step.done and not first_s:
                first_s = time.monotonic() - started_at
    if job.wait() != 0 or not first_s:
        raise JobError("the ETL job of a benchmark failed")
    return begun_s, first_s


def etl_scaling() -> Figure:
    """CPU time of Ray and the driver beside the work itself, for a thousand images: 8 simulated nodes, and 1."""
    import subprocess

    overheads = {}
    for nodes in NODES:
        ended = subprocess.run(
            [sys.executable, "-m", "jobs.bench.ray_nodes", str(nodes)],
            cwd=PROJECT_ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        if ended.returncode != 0:
            raise JobError(f"{nodes} simulated nodes: {ended.stderr.strip().splitlines()[-1]}")
        overheads[nodes] = float(ended.stdout.strip().splitlines()[-1])
    sys.stderr.write(f"CPU-ms a thousand images beside the work, by nodes: {overheads}\n")
    peer = "1 node; 2 and 4 nodes: " + ", ".join(f"{overheads[nodes]:.0f}" for nodes in NODES[1:-1])
    return Figure.of(
        "etl_scaling", overheads[NODES[-1]], overheads[1], peer, "CPU-ms of scheduling for 1,000 images"
    )


BENCHMARKS = (
    etl_vs_process_pool,
    etl_vs_process_pool_jpeg,
    etl_vs_process_pool_dicom,
    etl_vs_read_images,
    etl_memory,
    etl_first_block,
    etl_scaling,
)
