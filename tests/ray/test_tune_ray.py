"""A sweep on a local Ray of two CPUs: its trials' workers take both, so any two of them at once would wait."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.fs
import pytest
import ray

from data.imaging.preprocess import PixelConfig
from train.checkpoints.store import CheckpointStore
from train.config import ModelConfig, OptimConfig, TrainConfig
from train.inputs.dataset import Images, TrainingData
from train.runs.worker import EpochReport, VitInputs
from train.runs.workers import DivergedError, TrainError, fit_on_workers
from tune import space as spaces
from tune import sweep_store
from tune.capacity import Node
from tune.config import SweepConfig
from tune.epoch_gate import EpochGate
from tune.sweep_driver import SweepDriver, SweepSpec
from tune.sweep_store import SweepStore
from tune.trial import Assignment, Origin, TrialEnvironment
from tune.tuner import run_trials

pytestmark = [
    pytest.mark.filterwarnings(r"ignore::DeprecationWarning:ray(\..*)?"),  # Ray about itself
    pytest.mark.timeout(600),
]

TRAIN = TrainConfig(
    model=ModelConfig(name="vit_tiny_patch16_224", kwargs={"depth": 1}),
    optim=OptimConfig(learning_rate=1e-3),
    epochs=2,
    batch_size=8,
)
SPACE = spaces.parse({"optim.learning_rate": {"low": 1e-4, "high": 1e-2, "log": True}})
METRIC = "validation_balanced_accuracy"


def load() -> TrainingData:
    rng = np.random.default_rng(0)

    def images(count: int, prefix: str) -> Images:
        return Images(
            hashes=[f"{prefix}{i}" for i in range(count)],
            pixels_NHW=rng.integers(0, 256, (count, 32, 32), dtype=np.uint8),
            labels_N=rng.integers(0, 3, count),
        )

    return TrainingData(
        train=images(24, "t"), validation=images(9, "v"), classes=("a", "b", "c"), pixels=PixelConfig(side=32)
    )


class Trials:
    """`TrialEnvironment.train` with checkpoints in a folder; trial 1 diverges and trial 3 breaks, before they begin."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(
        self, assignment: Assignment, origin: Origin | None, should_continue: Callable[[EpochReport], bool]
    ) -> dict[str, float]:
        if assignment.number == 1:
            raise DivergedError("the loss is no number")
        if assignment.number == 3:
            raise TrainError("the machine has no memory left")
        store = CheckpointStore(pyarrow.fs.LocalFileSystem(), str(self.folder / assignment.run))
        config = spaces.applied(TRAIN, assignment.settings)
        inputs = VitInputs(
            load=load,
            mlflow_tracking_uri=None,
            mlflow_run_id=None,
            store=store,
            should_continue=should_continue,
        )
        last = fit_on_workers(config, inputs, assignment.run)
        store.fetch(last, self.folder, "progress.json")
        history: list[dict[str, float]] = json.loads((self.folder / "progress.json").read_text())["history"]
        return history[-1]


class Silent:
    """MLflow, which this tier has not."""

    def begin(self, *_: Any) -> None:
        return None

    def end(self, *_: Any) -> None:
        return None


def attempt(
    store: Any, folder: Path, config: SweepConfig, nodes: list[Node]
) -> tuple[SweepStore, SweepDriver]:
    """One call of a sweep, as `tune.sweep` makes it."""
    sweep, _ = sweep_store.begin(store, "s", "f", "d", fresh=False)
    trial_store = SweepStore(store, sweep)
    gate = ray.remote(EpochGate).options(num_cpus=0).remote()
    spec = SweepSpec(config=config, train=TRAIN, space=SPACE, seed=0)
    silent: Any = Silent()
    driver = SweepDriver(trial_store, spec, silent, close=lambda: ray.get(gate.close.remote()))
    run_trials(
        driver, TrialEnvironment(gate=gate, epochs=TRAIN.epochs, metric=METRIC, train=Trials(folder)), nodes
    )
    ray.kill(gate)
    return SweepStore(store, sweep), driver


def test_trials_of_two_workers_on_two_cpus_come_to_their_ends_and_one_that_was_cut_off_goes_on(
    ray_local: None, folder_store: Any, tmp_path: Path
) -> None:
    little = SweepConfig(trials=4, budget_cpu_minutes=1e-6, grace_epochs=1, random_trials=9)
    cut, driver = attempt(folder_store, tmp_path, little, [Node(cpus=2)])
    assert [(one.state, one.epochs) for one in cut.trials] == [("unfinished", 1)]
    assert driver.touched == {0}
    assert 0 < cut.cpu_minutes < 5
    deadline_s = time.monotonic() + 20
    while ray.available_resources().get("CPU") != 2 and time.monotonic() < deadline_s:
        time.sleep(0.2)
    assert ray.available_resources()["CPU"] == 2  # a driver that was killed would have kept them

    enough = SweepConfig(trials=4, budget_cpu_minutes=60, grace_epochs=1, random_trials=9)
    crowded = [Node(cpus=8)]  # all drivers at once, whose workers want eight CPUs
    done, driver = attempt(folder_store, tmp_path, enough, crowded)
    assert [one.state for one in done.trials] in (
        ["complete", "failed", "complete", "unfinished"],
        ["complete", "failed", "stopped", "unfinished"],
    )
    assert (done.trial(1).why, done.trial(3).why) == (
        "the loss is no number",
        "the machine has no memory left",
    )
    assert done.trial(0).rows[0] == cut.trial(0).rows[0]
    assert len(done.trial(0).cpu_s) == 2
    assert driver.touched == {0, 2}
    assert sorted(row["nth"] for one in done.trials for row in one.rows) == list(range(done.next_nth))

    assert driver.spent is False
    assert SweepDriver(done, driver.spec, driver._mlflow_trials, print).done is False  # one is to go on
