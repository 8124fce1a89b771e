"""The ETL benchmarks: CPU time against a hand-written pool and a plain chain, memory, first block, overhead of nodes.

Each starts a platform of its own. `jobs.bench.etl_inside` runs inside it; the peer is `jobs.bench.process_pool`.
"""

import functools
import sys
import time

from cluster.progress import Step
from jobs.bench import corpus
from jobs.bench.corpus import Draw
from jobs.bench.figure import Figure
from jobs.runtime.console import Console
from jobs.runtime.entry import JobError
from jobs.runtime.submit import submit_and_follow
from jobs.runtime.throwaway_platform import Watch, own_platform, run_module

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
    """Measure images a CPU-second, ours and the peer's."""
    with own_platform() as platform:
        corpus.store(platform.settings, SOURCE, DRAWN[kind], IMAGES[kind])
        report = platform.run("jobs.bench.etl_inside", kind)
    return report["ours"], report["peer"]


def etl_vs_process_pool_jpeg() -> Figure:
    """Compare on JPEG of 1,024 pixels."""
    return Figure.of("etl_vs_process_pool_jpeg", *rates("jpeg"), POOL, "images a CPU-second")


def etl_vs_process_pool_dicom() -> Figure:
    """Compare on 12-bit DICOM of 1,024 pixels."""
    return Figure.of("etl_vs_process_pool_dicom", *rates("dicom"), POOL, "images a CPU-second")


def etl_vs_process_pool() -> Figure:
    """Return the worse of the two."""
    kind = min(("jpeg", "dicom"), key=lambda kind: rates(kind)[0] / rates(kind)[1])
    return Figure.of("etl_vs_process_pool", *rates(kind), f"{POOL}; {kind}", "images a CPU-second")


def etl_vs_read_images() -> Figure:
    """Compare on JPEG of 1,024 pixels, sealed for us and plain for the peer, which masks, checks and scales them
    alike, in the workers themselves, and neither groups, splits nor orders them.
    """
    chain = "ray.data.read_images, map_batches of the same duties, write_parquet"
    return Figure.of("etl_vs_read_images", *rates("chain"), chain, "images a CPU-second")


def peak_mib(images: int) -> float:
    """Measure the most memory of the whole platform while ETL makes a dataset of so many small images."""
    with own_platform() as platform:
        corpus.store(platform.settings, SOURCE, DRAWN["small"], images)
        with Watch(platform.processes, interval_s=1.0, memory=True) as watch:
            platform.run("jobs.etl", "--etl.pixels.side", "96")
    return watch.peak_bytes / 2**20


def etl_memory() -> Figure:
    """Compare memory at 20,000 images with that at 2,000."""
    peer, unit = f"the same with {FEW} images", "MiB, peak of all processes"
    return Figure.of("etl_memory", peak_mib(MANY), peak_mib(FEW), peer, unit)


def etl_first_block() -> Figure:
    """Time from the submission of the job to the first block in the store, on a platform that has just started."""
    with own_platform() as platform, FirstBlock(platform.home.log("etl")) as console:
        corpus.store(platform.settings, SOURCE, DRAWN["small"], FIRST_BLOCK_IMAGES)
        submitted_at = time.monotonic()
        ended = submit_and_follow(platform.settings, "python -m jobs.etl --etl.pixels.side 96", console)
    if ended.exit_code != 0 or not console.staged_at:
        raise JobError("the ETL job of a benchmark failed")
    begun_s, first_s = console.begun_at - submitted_at, console.staged_at - submitted_at
    sys.stderr.write(f"ETL began after {begun_s:.1f} s, its first block was staged after {first_s:.1f} s\n")
    return Figure.of("etl_first_block", first_s, 1.0, "a second", "s from submission")


class FirstBlock(Console):
    """Notes when an ETL job reports its first step, and when it has staged its first block."""

    begun_at = staged_at = 0.0

    def step(self, step: Step) -> None:
        super().step(step)
        if step.stage == "etl":
            self.begun_at = self.begun_at or time.monotonic()
            self.staged_at = self.staged_at or (time.monotonic() if step.done else 0.0)


def etl_scaling() -> Figure:
    """Compare the CPU time of Ray and the driver beside the work, for a thousand images: 8 simulated nodes and 1."""
    overheads = {
        nodes: float(run_module("jobs.bench.ray_nodes", str(nodes)).strip().splitlines()[-1])
        for nodes in NODES
    }
    sys.stderr.write(f"CPU-ms a thousand images beside the work, by nodes: {overheads}\n")
    peer = "1 node; 2 and 4 nodes: " + ", ".join(f"{overheads[nodes]:.0f}" for nodes in NODES[1:-1])
    unit = "CPU-ms of scheduling for 1,000 images"
    return Figure.of("etl_scaling", overheads[NODES[-1]], overheads[1], peer, unit)


BENCHMARKS = (
    etl_vs_process_pool,
    etl_vs_process_pool_jpeg,
    etl_vs_process_pool_dicom,
    etl_vs_read_images,
    etl_memory,
    etl_first_block,
    etl_scaling,
)
