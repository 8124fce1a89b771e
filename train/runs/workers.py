"""Run the training of one named run on Ray Train workers, for the drivers of both models.

A run survives deaths of workers, and continues from its last checkpoint when it is called again. The caller has
joined the Ray cluster.
"""

import functools
import json
import logging
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import ray.train
import safetensors.torch
from ray.train.torch import TorchTrainer

from cluster.expected import ExpectedError
from cluster.objects import ObjectStore, arrow_filesystem
from cluster.settings import Settings
from train.checkpoints.state import PROGRESS_NAME, WEIGHTS_NAME
from train.checkpoints.store import CheckpointStore, DamagedError
from train.checkpoints.temp_folders import scratch
from train.config import WorkersConfig
from train.runs import run_store
from train.runs.cluster_lock import claim
from train.runs.worker import Config, RunInputs, train_loop_per_worker
from train.tracking import mlflow_runs
from train.vit.inference import weights_sha256

if TYPE_CHECKING:
    from mlflow import MlflowClient

RAY_TRAIN = {
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    "RAY_TRAIN_PREEMPTION_POLL_INTERVAL_S": "2",
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "5",
}
"""How often Ray Train looks for dead workers and for nodes that are taken away, and how long it waits for room for
workers before it counts the resources again; variables of the environment have precedence."""

logger = logging.getLogger(__name__)


class TrainError(ExpectedError):
    """Training ended without a model; the message says why in one line."""


class DivergedError(TrainError):
    """The gradient is NaN or infinite because of the settings, not of the machine."""


class PausedError(Exception):
    """`RunInputs.should_continue` ended the run for now; another call continues from the end of that epoch."""


def train_run(
    store: ObjectStore, config: Config, run: run_store.Run, inputs: RunInputs[Config]
) -> run_store.Trained:
    """Train a run to its end, and record what its last checkpoint holds.

    Raises:
        TrainError: also if that checkpoint is damaged.
        PausedError, ClaimedError: as `fit_on_workers`.
    """
    last = fit_on_workers(config, inputs, run.key)
    try:
        with tempfile.TemporaryDirectory() as folder:
            for file in (PROGRESS_NAME, WEIGHTS_NAME):
                inputs.store.fetch(last, Path(folder), file)
            progress = json.loads((Path(folder) / PROGRESS_NAME).read_text())
            weights = (Path(folder) / WEIGHTS_NAME).read_bytes()
    except DamagedError as error:
        raise TrainError(
            f"the last checkpoint {last} is damaged ({error}): run the same command again, which goes on from the one "
            "before it"
        ) from error
    trained = run_store.Trained(
        weights_key=f"{run.checkpoints}/{last}/{inputs.published(config)}",
        weights_sha256=weights_sha256(safetensors.torch.load(weights)),
        steps=progress["step"],
        history=progress["history"],
    )
    run_store.note_trained(store, run, trained)
    return trained


def checkpoints_of(settings: Settings, store: ObjectStore, run: run_store.Run) -> CheckpointStore:
    """Return the checkpoints of a run in the object store."""
    return CheckpointStore(
        arrow_filesystem(settings),
        store.path(run_store.BUCKET, run.checkpoints),
        witness=store.path(run_store.BUCKET, run_store.pointer(run.name)),
    )


@contextmanager
def run_status(mlflow: "MlflowClient", run_id: str) -> Iterator[None]:
    """Mark the MLflow run as RUNNING, and as FAILED if training raises TrainError.

    Raises:
        TrackingError: MLflow does not answer at the start.
        TrainError: that of training; its message names MLflow's error too if FAILED could not be set.
    """
    with mlflow_runs.answering(mlflow):
        mlflow_runs.set_status(mlflow, run_id, "RUNNING")
    try:
        yield
    except TrainError as error:
        try:
            with mlflow_runs.answering(mlflow):
                mlflow_runs.set_status(mlflow, run_id, "FAILED")
        except mlflow_runs.TrackingError as tracking_error:
            raise TrainError(f"{error}; and {tracking_error}") from error
        raise


def fit_on_workers(config: Config, inputs: RunInputs[Config], run_key: str) -> str:
    """Run the training loop on Ray Train workers, which `max_failures` deaths do not end.

    Called again with the same arguments it continues from the last checkpoint, or returns at once.
    Returns:
        the name of the last checkpoint in `inputs.store`.
    Raises:
        TrainError: the workers failed more often than that, or another attempt would end as this one did
            (DivergedError: because of its settings).
        PausedError: `inputs.should_continue` returned False.
        ClaimedError: another job trains this run.
    """
    loop = functools.partial(train_loop_per_worker, kind=type(config), inputs=inputs)
    with claim(f"run {run_key}"):
        while True:
            ending = _attempt(config, run_key, loop)
            if "stopped" in ending:
                raise TrainError(ending["stopped"])
            if "diverged" in ending:
                raise DivergedError(ending["diverged"])
            if "halted" in ending:
                raise PausedError(ending["halted"])
            if "checkpoint" in ending:
                return ending["checkpoint"]
            logger.warning("training goes on elsewhere: %s", ending["left"])


def _attempt(config: WorkersConfig, run_key: str, loop: Callable[..., dict[str, str]]) -> dict[str, str]:
    """Run Ray Train once; returns what `train_loop_per_worker` returned."""
    per_worker = {"CPU": float(config.cpus_per_worker)} | ({"GPU": 1.0} if config.use_gpu else {})
    cuda = {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"}  # without it cuBLAS is not deterministic
    elastic = (config.min_workers, config.num_workers)
    for name, value in RAY_TRAIN.items():
        os.environ.setdefault(name, value)
    with scratch() as unused:  # Ray insists on a folder; the checkpoints are not Ray's
        trainer = TorchTrainer(
            loop,
            train_loop_config={"train": config.as_dict(), "run": run_key},
            scaling_config=ray.train.ScalingConfig(
                num_workers=elastic if 0 < config.min_workers < config.num_workers else config.num_workers,
                use_gpu=config.use_gpu,
                resources_per_worker=per_worker,
                elastic_resize_monitor_interval_s=config.resize_check_s,
            ),
            run_config=ray.train.RunConfig(
                name="train",
                storage_path=str(unused),
                failure_config=ray.train.FailureConfig(max_failures=config.max_failures),
                worker_runtime_env={"env_vars": cuda} if config.use_gpu else None,
                logging_config=ray.train.LoggingConfig("WARNING"),
            ),
        )
        try:
            ending: dict[str, str] = trainer.fit().return_value
        except ray.train.TrainingFailedError as error:
            raise TrainError(f"training failed: {_reason(error)}") from error
    return ending


def _reason(error: Exception) -> str:
    """Return Ray's error as one line that says what to do."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    if any("OutOfMemoryError" in line or "running low on memory" in line for line in lines):
        return (
            "the machine ran out of memory and Ray ended the workers: end what else runs there, or take a smaller "
            "train.microbatch_size; the same command goes on from the last checkpoint"
        )
    return lines[-1] if lines else repr(error)
