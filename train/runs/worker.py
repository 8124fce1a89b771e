"""What each Ray Train worker runs: the loop of `train.loop.fit` with Ray's context and the run's checkpoints.

The workers' settings are plain data (Ray shows them in its dashboard); anything that holds a secret travels in
`RunInputs`, which also has what differs between the models. Rank 0 sends the metrics to MLflow and reports progress;
one worker of each machine sends system metrics.
"""

import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

import ray.train
import ray.train.torch
import torch

from cluster.progress import report
from train.checkpoints.manager import RunCheckpoints
from train.checkpoints.state import AVERAGE_NAME, WEIGHTS_NAME, CheckpointError, Progress
from train.checkpoints.store import CheckpointStore, Retention
from train.config import TrainConfig, WorkersConfig
from train.inputs.dataset import TrainingData
from train.loop import setup
from train.loop.fit import fit
from train.loop.interfaces import Preempted, Setup, StopRequested, TrainingCallbacks, TrainingDivergedError
from train.strategies.collectives import make_deterministic
from train.tracking.mlflow_runs import MetricLog
from train.tracking.system_metrics import machine_name, watched

REPORT_INTERVAL_S = 0.5
Config = TypeVar("Config", bound=WorkersConfig)


@dataclass(frozen=True, kw_only=True)
class EpochReport:
    """State of a run when an epoch is committed, for the decision whether it continues."""

    attempt: str
    """Differs between the attempts at a run."""
    cpu_s: float
    """CPU time of the processes of all workers of this attempt, since each began."""
    history: list[dict[str, float]]
    """A row of metrics for each epoch."""


@dataclass(frozen=True, kw_only=True)
class RunInputs(ABC, Generic[Config]):
    """Where a run reads its data and writes its metrics and checkpoints, and what its model needs of the worker."""

    stage: ClassVar[str]
    """Name of the progress lines."""
    loading: ClassVar[str]
    """What the worker does before the first step, for the first progress line."""
    system_metrics: ClassVar[bool] = False
    """Whether machines are sampled during the run."""
    unusable: ClassVar[tuple[type[Exception], ...]] = ()
    """Errors of `prepare` that another attempt would end in as well."""

    mlflow_tracking_uri: str | None
    """None: metrics are in the checkpoints only."""
    mlflow_run_id: str | None
    store: CheckpointStore
    should_continue: Callable[[EpochReport], bool] | None = None
    """Called on rank 0 after each epoch and when a run resumes; False pauses it. None: to the last epoch."""

    @abstractmethod
    def prepare(self, config: Config, run: str, device: torch.device) -> Setup:
        """Load the data and build the model, on a worker.

        Args:
            run: identity of the run.
        """

    @abstractmethod
    def note(self, loss: float, latest: Mapping[str, float]) -> str:
        """Return what a progress line says of the loss and of the latest epoch, whose metrics are empty at first."""

    def retention(self, config: Config) -> Retention:
        """Return which checkpoints stay."""
        return Retention(newest=config.keep_checkpoints)

    def published(self, config: Config) -> str:
        """Return the file of the last checkpoint whose weights are published."""
        return WEIGHTS_NAME


@dataclass(frozen=True, kw_only=True)
class VitInputs(RunInputs[TrainConfig]):
    """Inputs of a run of the ViT."""

    stage: ClassVar[str] = "train"
    loading: ClassVar[str] = "loading the dataset"
    system_metrics: ClassVar[bool] = True

    load: Callable[[], TrainingData]
    start: Callable[[], dict[str, torch.Tensor]] | None = None
    """Reads the initial weights; None: random ones."""

    def prepare(self, config: TrainConfig, run: str, device: torch.device) -> Setup:
        data = self.load()
        start = self.start() if self.start else None
        return setup.prepare(config, data, run=run, device=device, start=start)

    def note(self, loss: float, latest: Mapping[str, float]) -> str:
        if not latest:
            return f"loss {loss:.2f}"
        accuracy, speed = latest["validation_accuracy"], latest["images_per_s"]
        return f"loss {loss:.2f}, validation accuracy {accuracy:.2f}, {speed:.0f} images/s"

    def retention(self, config: TrainConfig) -> Retention:
        return Retention(newest=config.keep_checkpoints, every_epochs=config.keep_every_epochs)

    def published(self, config: TrainConfig) -> str:
        return AVERAGE_NAME if config.ema_decay else WEIGHTS_NAME


def train_loop_per_worker(
    values: dict[str, Any], kind: type[Config], inputs: RunInputs[Config]
) -> dict[str, str]:
    """Train on this worker's device until the last epoch.

    Args:
        values: {"train": `WorkersConfig.as_dict()`, "run": identity of the run}.
        kind: class of the settings.
    Returns:
        how it ended, the same on all ranks: {"checkpoint": name of the last one}; {"left": why} if the machine is
        about to be taken away and the run continues elsewhere; {"halted": name of the last checkpoint} if
        `inputs.should_continue` returned False; {"diverged": why} or {"stopped": why} if another attempt would end
        the same way.
    """
    config = kind.from_dict(values["train"])
    make_deterministic(config.cpus_per_worker)
    logging.getLogger().setLevel(logging.WARNING)  # Ray Train logs each report through the root logger
    context = ray.train.get_context()
    shown = context.get_world_rank() == 0
    if shown:
        report(inputs.stage, 0, 1, inputs.loading)
    device = ray.train.torch.get_device() if config.use_gpu else torch.device("cpu")
    try:
        prepared = inputs.prepare(config, values["run"], device)
    except inputs.unusable as error:
        return {"stopped": str(error)}
    checkpoints = RunCheckpoints(inputs.store, inputs.retention(config), leaves=_is_preempted)
    tracking_uri, run_id = inputs.mlflow_tracking_uri, inputs.mlflow_run_id
    sampled = inputs.system_metrics and context.get_local_rank() == 0
    try:
        with (
            watched(tracking_uri if sampled else None, run_id, _machine()),
            MetricLog.opened(tracking_uri if shown else None, run_id) as metrics,
        ):
            fit(prepared, checkpoints, _callbacks(config, inputs, checkpoints, metrics, shown=shown))
        ending = {"checkpoint": _current(checkpoints)}
    except Preempted:
        ending = {"left": "the machine is about to be taken away"}
    except StopRequested:
        ending = {"halted": _current(checkpoints)}
    except TrainingDivergedError as error:
        ending = {"diverged": str(error)}
    except CheckpointError as error:
        ending = {"stopped": str(error)}
    checkpoints.close()
    prepared.close()
    return ending


def _current(checkpoints: RunCheckpoints) -> str:
    assert checkpoints.current is not None
    return checkpoints.current


def _is_preempted() -> bool:
    return ray.train.get_preemption_info() is not None


def _machine() -> str:
    context = ray.train.get_context()
    return machine_name(context.get_node_rank(), context.get_local_world_size(), context.get_world_size())


def _callbacks(
    config: Config,
    inputs: RunInputs[Config],
    checkpoints: RunCheckpoints,
    metrics: MetricLog,
    *,
    shown: bool,
) -> TrainingCallbacks:
    """Make the callbacks: progress lines, at most two a second, and a row to Ray and MLflow after each epoch.

    Args:
        shown: whether this is rank 0, which reports progress and decides for all whether the run continues.
    """
    last_s, decide = 0.0, inputs.should_continue
    latest: dict[str, float] = {}

    def step(progress: Progress, steps: int, loss: float) -> None:
        nonlocal last_s
        now_s = time.monotonic()
        if shown and (now_s - last_s >= REPORT_INTERVAL_S or progress.step == steps):
            last_s = now_s
            current = min(progress.position.epoch + 1, config.epochs)
            note = f"epoch {current} of {config.epochs}, {inputs.note(loss, latest)}"
            report(inputs.stage, progress.step, steps, note)

    def epoch(row: dict[str, float], speed: dict[str, float]) -> None:
        latest.update(row | speed)
        metrics.put(row | speed)
        ray.train.report(row)  # by all ranks, as it waits for them

    def should_continue(history: list[dict[str, float]]) -> bool:
        assert decide is not None
        cpu_s = sum(checkpoints.gathered(time.process_time()))
        epoch_report = EpochReport(attempt=checkpoints.attempt, cpu_s=cpu_s, history=history)
        return bool(checkpoints.from_rank_0(decide(epoch_report) if shown else None))

    return TrainingCallbacks(step=step, epoch=epoch, should_continue=should_continue if decide else None)
