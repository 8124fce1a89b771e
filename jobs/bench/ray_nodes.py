"""What Ray costs beside the work, on simulated nodes: `python -m jobs.bench.ray_nodes NODES`, CPU-ms of 1,000 images.

The nodes are Ray's own of `ray.cluster_utils`, one CPU each, on this machine. The work of an image is a fixed number
of hashes, so that only the sharing out is measured: the CPU time of driver, workers, raylets and GCS, less that of
the hashes, less what the same processes use when nothing runs.
"""

import hashlib
import os
import statistics
import sys
import time

import psutil
import pyarrow as pa

from data.dataset import ray_map
from jobs.runtime.throwaway_platform import Watch, at_work, idle_share

IMAGES, BLOCK_ROWS = 8_192, 64
HASHES = 20
"""Of 4 KiB, for each image: 50 microseconds."""
ROUNDS = 3


def work(batch: pa.Table) -> pa.Table:
    """Work on the images of one block; returns the CPU-seconds that they took."""
    started_s = time.process_time()
    page = b"x" * 4096
    for _ in range(batch.num_rows * HASHES):
        hashlib.sha256(page).digest()
    return pa.table({"cpu_s": [time.process_time() - started_s]})


def processes() -> list[psutil.Process]:
    """List this driver and all below it: GCS, raylets and their workers."""
    here = psutil.Process()
    return [here, *(process for process in here.children(recursive=True) if at_work(process))]


def one_round() -> float:
    """Measure the CPU-seconds of a round beside the work."""
    tables = [pa.table({"image": list(range(BLOCK_ROWS))}) for _ in range(IMAGES // BLOCK_ROWS)]
    with Watch(processes) as watch:
        done_s = sum(table["cpu_s"][0].as_py() for table in ray_map.through_blocks(tables, work))
    return watch.cpu_s - done_s - idle_share(processes) * watch.wall_s


def main(nodes: int) -> float:
    os.environ["RAY_AUTH_MODE"] = "disabled"
    os.environ["RAY_DATA_DISABLE_PROGRESS_BARS"] = "1"
    import ray
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 1, "object_store_memory": 100 * 2**20}
    cluster = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
    try:
        for _ in range(nodes - 1):
            cluster.add_node(**node)
        cluster.wait_for_nodes()
        ray.init(address=cluster.address, logging_level="ERROR", log_to_driver=False)
        one_round()  # starts the workers
        return 1000 * statistics.median(one_round() for _ in range(ROUNDS)) / (IMAGES / 1000)
    finally:
        ray.shutdown()
        cluster.shutdown()


if __name__ == "__main__":
    sys.stdout.write(f"{main(int(sys.argv[1])):.1f}\n")
