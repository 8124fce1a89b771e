"""Two real Ray Train workers on a local Ray, one of them killed in the middle."""

import functools
import os
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.fs
import pytest

from data.imaging.preprocess import PixelConfig
from train.checkpoints.store import CheckpointStore
from train.config import ModelConfig, OptimConfig, TrainConfig
from train.inputs.dataset import Images, TrainingData
from train.runs.worker import VitInputs
from train.runs.workers import TrainError, fit_on_workers

pytestmark = [
    pytest.mark.filterwarnings(r"ignore::DeprecationWarning:ray(\..*)?"),  # Ray about itself
    pytest.mark.timeout(600),
]

CONFIG = TrainConfig(
    model=ModelConfig(name="vit_tiny_patch16_224", kwargs={"depth": 2}, drop_path_rate=0.2),
    optim=OptimConfig(learning_rate=1e-3),
    epochs=3,
    batch_size=8,
    checkpoint_every_steps=2,
    max_failures=2,
)


def images(count: int, prefix: str) -> Images:
    rng = np.random.default_rng(count)
    return Images(
        hashes=[f"{prefix}{i}" for i in range(count)],
        pixels_NHW=rng.integers(0, 256, (count, 32, 32), dtype=np.uint8),
        labels_N=rng.integers(0, 3, count),
    )


def load(pids: Path | None) -> TrainingData:
    """The data; with a folder, each worker leaves its process id there when it starts."""
    if pids is not None:
        (pids / str(os.getpid())).touch()
    return TrainingData(
        train=images(37, "t"), validation=images(9, "v"), classes=("a", "b", "c"), pixels=PixelConfig(side=32)
    )


def train(folder: Path, pids: Path | None = None, config: TrainConfig = CONFIG) -> Path:
    """Train to the end; the folder of the last checkpoint."""
    store = CheckpointStore(pyarrow.fs.LocalFileSystem(), str(folder))
    inputs = VitInputs(
        load=functools.partial(load, pids), mlflow_tracking_uri=None, mlflow_run_id=None, store=store
    )
    return folder / fit_on_workers(config, inputs, "key")


def contents(checkpoint: Path) -> dict[str, bytes]:
    """All that a checkpoint holds: weights, moments, history."""
    return {one.name: one.read_bytes() for one in checkpoint.iterdir()}


def kill_one_worker(folder: Path, pids: Path, killed: list[int]) -> None:
    """Wait for a committed checkpoint with a step behind it, then kill the younger of the two workers."""
    deadline_s = time.monotonic() + 180
    while time.monotonic() < deadline_s:
        if any("step-00000000" not in one.parent.name for one in folder.glob("*/commit.json")):
            pid = max(int(one.name) for one in pids.iterdir())
            os.kill(pid, signal.SIGKILL)
            killed.append(pid)
            return
        time.sleep(0.02)


def test_a_worker_killed_in_the_middle_changes_nothing(
    ray_local: None, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    undisturbed = train(tmp_path / "undisturbed")
    pids = tmp_path_factory.mktemp("pids")
    killed: list[int] = []
    killer = threading.Thread(target=kill_one_worker, args=(tmp_path / "killed", pids, killed))
    killer.start()
    last = train(tmp_path / "killed", pids)
    killer.join()
    assert len(killed) == 1
    assert len(list(pids.iterdir())) == 4  # two workers, and two again
    assert last.name[:-8] == undisturbed.name[:-8]
    assert contents(last) == contents(undisturbed)
    assert train(tmp_path / "killed", pids, replace(CONFIG, num_workers=1)) == last


def test_workers_that_cannot_train_end_in_one_line(ray_local: None, tmp_path: Path) -> None:
    broken = TrainConfig(
        model=ModelConfig(name="no_such_vit"), epochs=1, batch_size=8, num_workers=1, max_failures=0
    )
    with pytest.raises(TrainError, match="no_such_vit") as caught:
        train(tmp_path, config=broken)
    assert "\n" not in str(caught.value)
