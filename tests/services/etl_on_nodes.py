"""ETL on simulated nodes, one of which dies while it works: `python -m tests.services.etl_on_nodes SOURCE`.

The nodes are Ray's own of `ray.cluster_utils`, the stores those of the platform whose environment this process has. The
last line of standard output is JSON: the version, its blocks, and the nodes before and after.
"""

import json
import os
import sys
import time
from typing import Any

import ray
from ray.cluster_utils import Cluster

from cluster.settings import Settings
from data.dataset import etl
from data.imaging.preprocess import PixelConfig

NODES = 3


def main(source: str) -> dict[str, Any]:
    settings = Settings.from_env()
    del os.environ["RAY_ADDRESS"]  # the platform's own cluster has no part in this
    memory = {"object_store_memory": 100 * 2**20}
    cluster = Cluster(
        initialize_head=True, head_node_args={**memory, "num_cpus": 0, "include_dashboard": False}
    )
    nodes = [cluster.add_node(num_cpus=1, **memory) for _ in range(NODES)]
    cluster.wait_for_nodes()
    ray.init(address=cluster.address, logging_level="ERROR", log_to_driver=False)
    before = len(alive())
    at: list[int] = []

    def tell(done: int, total: int, note: str) -> None:
        if done and not at and "became pixels" in note:
            at.append(done)
            cluster.remove_node(nodes[0], allow_graceful=False)  # SIGKILL, and gone when this returns

    config = etl.EtlConfig(pixels=PixelConfig(side=128), sources=(source,))
    try:
        report = etl.run(settings, config, fresh=True, progress=tell)
        return {
            "version": report.version,
            "blocks": report.blocks,
            "images_done_at_death": at[0],
            "nodes": [before, settled(before - 1)],
        }
    finally:
        ray.shutdown()
        cluster.shutdown()


def settled(expected: int, within_s: float = 60.0) -> int:
    """The nodes alive once the control store has missed the dead one's heartbeats, which can outlast a short run."""
    deadline = time.monotonic() + within_s
    while (left := len(alive())) != expected and time.monotonic() < deadline:
        time.sleep(0.5)
    return left


def alive() -> list[str]:
    return [node["NodeID"] for node in ray.nodes() if node["Alive"]]


if __name__ == "__main__":
    sys.stdout.write("\n" + json.dumps(main(sys.argv[1])) + "\n")
