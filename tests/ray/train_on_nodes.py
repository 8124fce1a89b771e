"""Training on simulated nodes that die, come and are taken away: `python -m tests.ray.train_on_nodes FOLDER`.

The nodes are Ray's own of `ray.cluster_utils`, the checkpoints lie in the folder. Every update is noted in a file: its
step, the number of workers, and which samples were in the global batch; where a run is to be changed, it crawls until
it is. The last line of standard output is JSON: the notes and the history of both runs.
"""

import functools
import hashlib
import json
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.fs
import ray
from ray._raylet import GcsClient
from ray.cluster_utils import Cluster
from ray.core.generated import autoscaler_pb2

from data.imaging.preprocess import PixelConfig
from train.checkpoints.state import PROGRESS_NAME
from train.checkpoints.store import CheckpointStore
from train.config import AugmentConfig, ModelConfig, TrainConfig
from train.inputs.dataset import Images, TrainingData
from train.loop.setup import TrainContext
from train.runs.worker import VitInputs
from train.runs.workers import fit_on_workers

CRAWL_S = 1.0
STILL = AugmentConfig(rotation_degrees=0, shift=0, zoom=0, brightness=0, contrast=0)
CONFIG = TrainConfig(
    model=ModelConfig(name="vit_tiny_patch16_224", kwargs={"depth": 2}),
    augment=STILL,
    label_smoothing=0.2,
    epochs=11,
    batch_size=8,
    checkpoint_every_steps=10,
    min_workers=1,
    resize_check_s=3.0,
    max_failures=3,
)
NODE = {"num_cpus": 1, "object_store_memory": 100 * 2**20}
GRACE_S = 45.0
DEATH, ARRIVAL, NOTICE = (2, 30, 60), (1, 100, 160), (2, 180, 240)
"""Where the number of workers is to change: how many there are, and from which step to which the run waits for it."""
Notes = list[list[Any]]


def images(count: int, prefix: str) -> Images:
    rng = np.random.default_rng(count)
    return Images(
        hashes=[f"{prefix}{i}" for i in range(count)],
        pixels_NHW=rng.integers(0, 256, (count, 32, 32), dtype=np.uint8),
        labels_N=rng.integers(0, 3, count),
    )


def load(notes: Path, changes: bool) -> TrainingData:
    """The data; makes this worker's updates noted, and slow where the run waits for a change."""
    from train.checkpoints import manager

    update = TrainContext.update

    def noted(context: TrainContext, progress: Any, batch_B: np.ndarray, speed: Any) -> tuple[float, float]:
        for workers, first, end in (DEATH, ARRIVAL, NOTICE) if changes else ():
            if context.world_size == workers and first <= progress.step < end:
                time.sleep(CRAWL_S)
        done = update(context, progress, batch_B, speed)
        if context.rank == 0:
            ids = hashlib.sha256(batch_B.tobytes()).hexdigest()[:8]
            with notes.open("a") as file:
                file.write(json.dumps([progress.step, context.world_size, ids]) + "\n")
        return done

    TrainContext.update = noted
    manager.LOOK_S = 0.1  # it is counted in steps, at the pace of those before: few, once they crawl
    return TrainingData(
        train=images(200, "t"),
        validation=images(9, "v"),
        classes=("a", "b", "c"),
        pixels=PixelConfig(side=32),
    )


def read(notes: Path) -> Notes:
    return [json.loads(line) for line in notes.read_text().splitlines()] if notes.exists() else []


def wait(notes: Path, change: tuple[int, int, int], within_s: float = 240.0) -> None:
    """Until the run has come to where it waits for that change."""
    workers, first, _ = change
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if any(step >= first and there == workers for step, there, _ in read(notes)):
            return
        time.sleep(0.1)


def train(folder: Path, happens: Callable[[Path], None] | None = None) -> dict[str, Any]:
    """Train to the end while something happens; what was noted, and the history."""
    folder.mkdir()
    notes = folder / "notes"
    store = CheckpointStore(pyarrow.fs.LocalFileSystem(), str(folder / "checkpoints"))
    data = functools.partial(load, notes, happens is not None)
    inputs = VitInputs(load=data, mlflow_tracking_uri=None, mlflow_run_id=None, store=store)
    with ThreadPoolExecutor(1) as side:  # nodes can be added on the main thread only
        last = side.submit(fit_on_workers, CONFIG, inputs, "key")
        if happens is not None:
            happens(notes)
        name = last.result()
    host = json.loads((folder / "checkpoints" / name / PROGRESS_NAME).read_text())
    return {"notes": read(notes), "history": host["history"]}


def drain(cluster: Cluster, node_id: str) -> None:
    """Tell Ray that the node will be taken away."""
    reason = autoscaler_pb2.DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION")
    deadline_ms = int((time.time() + GRACE_S) * 1000)
    accepted, why = GcsClient(address=cluster.address).drain_node(node_id, reason, "test", deadline_ms)
    assert accepted, why


def main(folder: Path) -> dict[str, Any]:
    cluster = Cluster(
        initialize_head=True, head_node_args={**NODE, "num_cpus": 0, "include_dashboard": False}
    )
    nodes = [cluster.add_node(**NODE) for _ in range(2)]
    cluster.wait_for_nodes()
    ray.init(address=cluster.address, logging_level="ERROR", log_to_driver=False)

    def node_dies_another_comes_and_is_taken_away(notes: Path) -> None:
        wait(notes, DEATH)
        cluster.remove_node(nodes.pop(), allow_graceful=False)
        wait(notes, ARRIVAL)
        nodes.append(cluster.add_node(**NODE))
        wait(notes, NOTICE)
        drain(cluster, nodes[-1].node_id)

    try:
        return {
            "calm": train(folder / "calm"),
            "elastic": train(folder / "elastic", node_dies_another_comes_and_is_taken_away),
        }
    finally:
        ray.shutdown()
        cluster.shutdown()


if __name__ == "__main__":
    sys.stdout.write("\n" + json.dumps(main(Path(sys.argv[1]))) + "\n")
