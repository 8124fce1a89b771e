"""What each Ray Train worker runs to fine-tune the language model: `train.llm_fit` with the run's checkpoints.

The workers' configuration is plain data; whatever holds a secret travels in `LlmPlace`.
"""

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray.train
import ray.train.torch
import torch

from cluster.progress import report
from train.checkpoint import CheckpointError, Progress
from train.checkpoint_run import RunCheckpoints
from train.checkpoint_store import CheckpointStore, Retention
from train.fit import LeaveError, Watch
from train.llm_config import LlmConfig
from train.llm_fit import fit, prepare
from train.llm_model import LlmModelError
from train.llm_nf4 import Nf4Error
from train.llm_tokens import LlmDataError, Pair
from train.loop import REPORT_INTERVAL_S
from train.parallel import make_deterministic
from train.step import TrainingDivergedError
from train.tracking import MetricLog


@dataclass(frozen=True, kw_only=True)
class LlmPlace:
    """Where a run finds its base model and tells its metrics."""

    base: Callable[[], AbstractContextManager[Path]]
    """The base checkpoint's folder, there for as long as the context lasts."""
    pairs: Sequence[Pair]
    mlflow_tracking_uri: str | None
    mlflow_run_id: str | None
    store: CheckpointStore


def llm_loop_per_worker(config: dict[str, Any], place: LlmPlace) -> dict[str, str]:
    """Fine-tune on this worker's device until the last epoch.

    Args:
        config: {"train": `LlmConfig.as_dict()`, "run": identity of the run}.
    Returns:
        how it ended, as `train.loop.train_loop_per_worker` says it.
    """
    settings = LlmConfig.from_dict(config["train"])
    make_deterministic(settings.cpus_per_worker)
    logging.getLogger().setLevel(logging.WARNING)  # Ray Train says each report through the root logger
    rank = ray.train.get_context().get_world_rank()
    if rank == 0:
        report("finetune", 0, 1, "loading the base model")
    device = ray.train.torch.get_device() if settings.use_gpu else torch.device("cpu")
    try:
        with place.base() as base:
            setup = prepare(settings, base, place.pairs, run=config["run"], device=device)
    except (LlmModelError, LlmDataError, Nf4Error) as error:
        return {"stopped": str(error)}
    checkpoints = RunCheckpoints(
        place.store,
        Retention(newest=settings.keep_checkpoints),
        leaves=lambda: ray.train.get_preemption_info() is not None,
    )
    try:
        tracked = place.mlflow_tracking_uri if rank == 0 else None
        with MetricLog.opened(tracked, place.mlflow_run_id) as metrics:
            fit(setup, checkpoints, _watch(settings, metrics, shown=rank == 0))
        assert checkpoints.current is not None
        ending = {"checkpoint": checkpoints.current}
    except LeaveError:
        ending = {"left": "the machine is about to be taken away"}
    except (TrainingDivergedError, CheckpointError) as error:
        ending = {"stopped": str(error)}
    checkpoints.close()
    return ending


def _watch(config: LlmConfig, metrics: MetricLog, *, shown: bool) -> Watch:
    """Progress lines on rank 0, and a row to Ray and MLflow after each epoch."""
    last_s = 0.0

    def step(progress: Progress, steps: int, loss: float) -> None:
        nonlocal last_s
        now_s = time.monotonic()
        if shown and (now_s - last_s >= REPORT_INTERVAL_S or progress.step == steps):
            last_s = now_s
            current = min(progress.position.epoch + 1, config.epochs)
            report("finetune", progress.step, steps, f"epoch {current} of {config.epochs}, loss {loss:.3f}")

    def epoch(row: dict[str, float], speed: dict[str, float]) -> None:
        metrics.put(row | speed)
        ray.train.report(row)  # by all ranks, as it waits for them

    return Watch(step=step, epoch=epoch)
