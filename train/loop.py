"""What each Ray Train worker runs: the loop of `train.fit` with Ray's context and the run's checkpoints.

The workers' configuration is plain data (Ray shows it in the dashboard); whatever holds a secret travels in
`Place`. The metrics of MLflow and progress are rank 0's, its system metrics those of one worker of each machine.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import ray.train
import ray.train.torch
import torch

from cluster.progress import report
from train.checkpoint import CheckpointError, Progress
from train.checkpoint_run import RunCheckpoints
from train.checkpoint_store import CheckpointStore, Retention
from train.config import TrainConfig
from train.dataset import TrainingData
from train.fit import HaltError, LeaveError, Watch, fit
from train.parallel import make_deterministic
from train.setup import prepare
from train.step import TrainingDivergedError
from train.system_metrics import machine_name, watched
from train.tracking import MetricLog

REPORT_INTERVAL_S = 0.5


@dataclass(frozen=True, kw_only=True)
class SoFar:
    """What rank 0 tells when an epoch is committed, to whoever decides whether the run goes on."""

    attempt: str
    """Tells the attempts at a run apart."""
    cpu_s: float
    """CPU time of the processes of all workers of this attempt, since each began."""
    history: list[dict[str, float]]
    """A row of metrics for each epoch."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a run finds its data and tells its metrics."""

    load: Callable[[], TrainingData]
    mlflow_tracking_uri: str | None
    """None: metrics go nowhere but into the checkpoints."""
    mlflow_run_id: str | None
    store: CheckpointStore
    start: Callable[[], dict[str, torch.Tensor]] | None = None
    """The first weights; None: random ones."""
    goes_on: Callable[[SoFar], bool] | None = None
    """Asked on rank 0 after each epoch, and first when a run goes on; False ends it for now. None: to the end."""


def train_loop_per_worker(config: dict[str, Any], place: Place) -> dict[str, str]:
    """Train on this worker's device until the last epoch.

    Args:
        config: {"train": `TrainConfig.as_dict()`, "run": identity of the run}.
    Returns:
        how it ended, the same on all ranks: {"checkpoint": name of the last one}, {"left": why} when the machine is
        about to be taken away and the run is to go on elsewhere, {"halted": name of the last checkpoint} where
        `place.goes_on` said no, {"diverged": why} or {"stopped": why} when another attempt would end the same way.
    """
    settings = TrainConfig.from_dict(config["train"])
    make_deterministic(settings.cpus_per_worker)
    logging.getLogger().setLevel(logging.WARNING)  # Ray Train says each report through the root logger
    rank = ray.train.get_context().get_world_rank()
    if rank == 0:
        report("train", 0, 1, "loading the dataset")
    device = ray.train.torch.get_device() if settings.use_gpu else torch.device("cpu")
    data = place.load()
    start = place.start() if place.start else None
    setup = prepare(settings, data, run=config["run"], device=device, start=start)
    retention = Retention(newest=settings.keep_checkpoints, every_epochs=settings.keep_every_epochs)
    checkpoints = RunCheckpoints(place.store, retention, leaves=_is_preempted)
    try:
        tracking_uri = place.mlflow_tracking_uri
        with (
            watched(tracking_uri if _first_of_machine() else None, place.mlflow_run_id, _machine()),
            MetricLog.opened(tracking_uri if rank == 0 else None, place.mlflow_run_id) as metrics,
        ):
            watch = _watch(settings, metrics, shown=rank == 0)
            fit(setup, checkpoints, replace(watch, goes_on=_asker(place, checkpoints)))
        assert checkpoints.current is not None
        ending = {"checkpoint": checkpoints.current}
    except LeaveError:
        ending = {"left": "the machine is about to be taken away"}
    except HaltError:
        assert checkpoints.current is not None
        ending = {"halted": checkpoints.current}
    except TrainingDivergedError as error:
        ending = {"diverged": str(error)}
    except CheckpointError as error:
        ending = {"stopped": str(error)}
    checkpoints.close()
    data.close()
    return ending


def _is_preempted() -> bool:
    return ray.train.get_preemption_info() is not None


def _first_of_machine() -> bool:
    return ray.train.get_context().get_local_rank() == 0


def _machine() -> str:
    context = ray.train.get_context()
    return machine_name(context.get_node_rank(), context.get_local_world_size(), context.get_world_size())


def _asker(place: Place, checkpoints: RunCheckpoints) -> Callable[[list[dict[str, float]]], bool] | None:
    """Asks on rank 0, with the CPU time of all ranks; the answer is the same on all of them."""
    asked = place.goes_on
    if asked is None:
        return None

    def goes_on(history: list[dict[str, float]]) -> bool:
        cpu_s = sum(checkpoints.gathered(time.process_time()))
        first = ray.train.get_context().get_world_rank() == 0
        so_far = SoFar(attempt=checkpoints.attempt, cpu_s=cpu_s, history=history)
        return bool(checkpoints.from_rank_0(asked(so_far) if first else None))

    return goes_on


def _watch(config: TrainConfig, metrics: MetricLog, *, shown: bool) -> Watch:
    """Progress lines, at most two a second, and a row to Ray and MLflow after each epoch; `shown` on rank 0."""
    last_s, newest = 0.0, ""

    def step(progress: Progress, steps: int, loss: float) -> None:
        nonlocal last_s
        now_s = time.monotonic()
        if shown and (now_s - last_s >= REPORT_INTERVAL_S or progress.step == steps):
            last_s = now_s
            current = min(progress.position.epoch + 1, config.epochs)
            report(
                "train", progress.step, steps, f"epoch {current} of {config.epochs}, loss {loss:.2f}{newest}"
            )

    def epoch(row: dict[str, float], speed: dict[str, float]) -> None:
        nonlocal newest
        newest = (
            f", validation accuracy {row['validation_accuracy']:.2f}, {speed['images_per_s']:.0f} images/s"
        )
        metrics.put(row | speed)
        ray.train.report(row)  # by all ranks, as it waits for them

    return Watch(step=step, epoch=epoch)
