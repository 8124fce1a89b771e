"""What each Ray Train worker runs: the loop of `train.fit` with Ray's context, storage and checkpoints.

The workers' configuration is plain data (Ray shows it in the dashboard); whatever holds a secret travels in
`Place`. MLflow and progress are rank 0's.
"""

import logging
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray.train
import ray.train.torch
import torch
import torch.utils.deterministic

from cluster.progress import report
from train.checkpoint import Progress
from train.config import TrainConfig
from train.dataset import TrainingData
from train.fit import Watch, fit, prepare
from train.parallel import keep_freed_memory
from train.tracking import MetricLog

REPORT_INTERVAL_S = 0.5


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a run finds its data and tells its metrics."""

    load: Callable[[], TrainingData]
    mlflow_tracking_uri: str | None
    """None: metrics go nowhere but into the checkpoints."""
    mlflow_run_id: str | None


class RayCheckpoints:
    """Checkpoints in the storage of the Ray Train run; uploads go on while training does."""

    @contextmanager
    def newest(self) -> Iterator[Path | None]:
        newest = ray.train.get_checkpoint()
        if newest is None:
            yield None
            return
        with newest.as_directory() as directory:
            yield Path(directory)

    def commit(self, name: str, metrics: dict[str, float], write: Callable[[Path], None]) -> None:
        with ExitStack() as leftovers:
            directory = Path(tempfile.mkdtemp(prefix="checkpoint-"))
            leftovers.callback(shutil.rmtree, directory, ignore_errors=True)
            write(directory)
            leftovers.pop_all()  # from here on Ray deletes it, after the upload
        ray.train.report(
            metrics,
            checkpoint=ray.train.Checkpoint.from_directory(str(directory)),
            checkpoint_dir_name=name,
            checkpoint_upload_mode=ray.train.CheckpointUploadMode.ASYNC,
            delete_local_checkpoint_after_upload=True,
        )


def train_loop_per_worker(config: dict[str, Any], place: Place) -> None:
    """Train on this worker's device until the last epoch.

    Args:
        config: {"train": `TrainConfig.as_dict()`, "run": identity of the run}.
    """
    settings = TrainConfig.from_dict(config["train"])
    torch.set_num_threads(settings.cpus_per_worker)
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    keep_freed_memory()
    logging.getLogger().setLevel(logging.WARNING)  # Ray Train says each report through the root logger
    rank = ray.train.get_context().get_world_rank()
    if rank == 0:
        report("train", 0, 1, "loading the dataset")
    device = ray.train.torch.get_device() if settings.use_gpu else torch.device("cpu")
    setup = prepare(settings, place.load(), run=config["run"], device=device)
    if rank != 0:
        fit(setup, RayCheckpoints())
        return
    with MetricLog.opened(place.mlflow_tracking_uri, place.mlflow_run_id) as metrics:
        fit(setup, RayCheckpoints(), _watch(settings, metrics))


def _watch(config: TrainConfig, metrics: MetricLog) -> Watch:
    """Progress lines, at most two a second, and a row to MLflow after each epoch."""
    last_s, newest = 0.0, ""

    def step(progress: Progress, steps: int, loss: float) -> None:
        nonlocal last_s
        now_s = time.monotonic()
        if now_s - last_s >= REPORT_INTERVAL_S or progress.step == steps:
            last_s = now_s
            shown = min(progress.position.epoch + 1, config.epochs)
            report(
                "train", progress.step, steps, f"epoch {shown} of {config.epochs}, loss {loss:.2f}{newest}"
            )

    def epoch(row: dict[str, float], speed: dict[str, float]) -> None:
        nonlocal newest
        newest = (
            f", validation accuracy {row['validation_accuracy']:.2f}, {speed['images_per_s']:.0f} images/s"
        )
        metrics.put(row | speed)

    return Watch(step=step, epoch=epoch)
