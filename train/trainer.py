"""Train the ViT on the cluster and register what comes out: the driver's side.

`train` can be called again at any time with the same arguments: it continues what was interrupted, repeats
nothing that is done, and returns a finished run at once. The caller has joined the Ray cluster.
"""

import contextlib
import functools
import json
import logging
import os
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import ray.train
import safetensors.torch
import torch
from ray.train.torch import TorchTrainer

from cluster import bundles
from cluster.expected import ExpectedError
from cluster.objects import ObjectStore, arrow_filesystem
from cluster.registry import Registry
from cluster.settings import Settings
from data.versions import manifest
from train import dataset, provenance, release, runs, tracking, warm_start
from train.checkpoint import AVERAGE_NAME, PROGRESS_NAME, WEIGHTS_NAME
from train.checkpoint_store import CheckpointStore, DamagedError
from train.claim import claim
from train.config import TrainConfig
from train.inference import weights_sha256
from train.llm_config import LlmConfig
from train.loop import Place, train_loop_per_worker
from train.model import build_vit
from train.scratch import scratch

Progress = Callable[[int, int, str], None]
Loop = Callable[..., dict[str, str]]
"""What a worker runs: with the configuration, and what it needs of the place; returns as `train.loop` does."""
RAY_TRAIN = {
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    "RAY_TRAIN_PREEMPTION_POLL_INTERVAL_S": "2",
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "5",
}
"""How often Ray Train looks for dead workers and for nodes that are taken away, and how long it waits for a place for
workers before it counts the resources again; the environment may say otherwise."""

logger = logging.getLogger(__name__)


class TrainError(ExpectedError):
    """Training ended without a model; the message says why in one line."""


class DivergedError(TrainError):
    """The loss became no number, twice: the settings are to blame, not the machine."""


class HaltedError(Exception):
    """`Place.goes_on` ended the run for now; called again it goes on from the checkpoint at the end of that epoch."""


@dataclass(frozen=True, kw_only=True)
class TrainOutcome:
    run: str
    """The run's name."""
    run_id: str
    """MLflow's."""
    resumed: bool
    """Whether the run had been begun before."""
    model_version: str
    steps: int
    weights_sha256: str
    bundle_key: str


def train(
    settings: Settings,
    config: TrainConfig,
    dataset_version: str,
    run_name: str,
    *,
    fresh: bool = False,
    git_commit: str = "unknown",
    uncommitted: str | None = None,
    progress: Progress | None = None,
) -> TrainOutcome:
    """Train, calibrate, publish the bundle and register the version, without alias.

    Args:
        run_name: continued when it is unfinished, returned when it is finished; `runs.default_name` gives one.
        fresh: start anew under the same name.
        uncommitted: what the code differs by from that commit, for MLflow; empty: nothing; None: nobody knows.
        progress: told what the driver does when the workers are done.
    Raises:
        TrainError, TrainConfigError, TrainDataError, VersionError, RunError, TrackingError: one line each.
    """
    tell = progress or _silent
    store = ObjectStore(settings)
    described = manifest(store, dataset_version)
    check(config, described)
    run, begun = runs.begin(store, run_name, config, dataset_version, fresh=fresh)
    if (outcome := runs.finished(store, run)) is not None:
        return TrainOutcome(**{**outcome, "resumed": True})
    start = first_weights(settings, store, config, described, run)
    mlflow = tracking.client(settings.mlflow_tracking_uri)
    params = tracking.flat(config.as_dict()) | {"dataset_version": dataset_version, "git_commit": git_commit}
    run_id = tracking.start_run(mlflow, run.key, run.name, params)
    with tracking.answering(mlflow):
        provenance.log(mlflow, run_id, settings, described, uncommitted)
    trained = runs.trained(store, run) or _fit(settings, store, config, run, run_id, start)
    with tracking.answering(mlflow):
        tracking.log_rows(mlflow, run_id, trained.history)
    lineage = {
        "dataset_version": dataset_version,
        "synthetic": bool(described["synthetic"]),
        "git_commit": git_commit,
        "run_id": run_id,
    } | ({"start": start["from"]} if start else {})
    bundle_key, version = _release(settings, store, config, trained, lineage, tell)
    with tracking.answering(mlflow):
        _log_release(store, mlflow, run_id, config, bundle_key)
        tracking.set_status(mlflow, run_id, "FINISHED")
    done = TrainOutcome(
        run=run.name,
        run_id=run_id,
        resumed=begun,
        model_version=version,
        steps=trained.steps,
        weights_sha256=trained.weights_sha256,
        bundle_key=bundle_key,
    )
    runs.note_finished(store, run, asdict(done))
    return done


def check(config: TrainConfig, described: dict[str, Any]) -> None:
    """Refuse here, in a second, what each worker would refuse after its start, `max_failures` times over."""
    dataset.check(described)
    with torch.device("meta"):
        build_vit(
            config.model, classes=len(described["classes"]), side=described["settings"]["pixels"]["side"]
        )


def first_weights(
    settings: Settings, store: ObjectStore, config: TrainConfig, described: dict[str, Any], run: runs.Run
) -> dict[str, str] | None:
    """What the run begins with; None from scratch."""
    return warm_start.pin(
        settings,
        store,
        (runs.BUCKET, run.folder),
        config.model,
        classes=described["classes"],
        side=described["settings"]["pixels"]["side"],
    )


def _fit(
    settings: Settings,
    store: ObjectStore,
    config: TrainConfig,
    run: runs.Run,
    run_id: str,
    start: dict[str, str] | None,
) -> runs.Trained:
    """Run the workers to the end and note what they leave."""
    mlflow = tracking.client(settings.mlflow_tracking_uri)
    with tracking.answering(mlflow):
        tracking.set_status(mlflow, run_id, "RUNNING")
    place = place_of(settings, store, config, run, run_id, start)
    try:
        return keep(store, config, run, place.store, fit_on_workers(config, place, run.key))
    except TrainError as error:
        try:
            with tracking.answering(mlflow):
                tracking.set_status(mlflow, run_id, "FAILED")
        except tracking.TrackingError as also:
            raise TrainError(f"{error}; and {also}") from error
        raise


def place_of(
    settings: Settings,
    store: ObjectStore,
    config: TrainConfig,
    run: runs.Run,
    run_id: str | None,
    start: dict[str, str] | None,
) -> Place:
    """Where the workers of a run find its data, first weights and checkpoints, and tell its metrics."""
    return Place(
        load=functools.partial(dataset.load, settings, run.dataset_version, memory_share=config.memory_share),
        start=functools.partial(warm_start.read, settings, runs.BUCKET, start) if start else None,
        mlflow_tracking_uri=settings.mlflow_tracking_uri,
        mlflow_run_id=run_id,
        store=checkpoints_of(settings, store, run),
    )


def checkpoints_of(settings: Settings, store: ObjectStore, run: runs.Run) -> CheckpointStore:
    """The checkpoints of a run, in the object store."""
    return CheckpointStore(
        arrow_filesystem(settings),
        store.path(runs.BUCKET, run.checkpoints),
        witness=store.path(runs.BUCKET, runs.pointer(run.name)),
    )


def keep(
    store: ObjectStore, config: TrainConfig, run: runs.Run, checkpoints: CheckpointStore, last: str
) -> runs.Trained:
    """Note what a training that came to its end leaves in its last checkpoint.

    Raises:
        TrainError: that checkpoint is damaged.
    """
    host, weights = last_state(checkpoints, last)
    trained = runs.Trained(
        weights_key=f"{run.checkpoints}/{last}/{AVERAGE_NAME if config.ema_decay else WEIGHTS_NAME}",
        weights_sha256=weights_sha256(safetensors.torch.load(weights)),
        steps=host["step"],
        history=host["history"],
    )
    runs.note_trained(store, run, trained)
    return trained


def last_state(store: CheckpointStore, last: str) -> tuple[dict[str, Any], bytes]:
    """Progress and raw weights of the last checkpoint."""
    try:
        with tempfile.TemporaryDirectory() as folder:
            for file in (PROGRESS_NAME, WEIGHTS_NAME):
                store.fetch(last, Path(folder), file)
            progress: dict[str, Any] = json.loads((Path(folder) / PROGRESS_NAME).read_text())
            return progress, (Path(folder) / WEIGHTS_NAME).read_bytes()
    except DamagedError as error:
        raise TrainError(
            f"the last checkpoint {last} is damaged ({error}): run the same command again, which goes on from the one "
            "before it"
        ) from error


def fit_on_workers(
    config: TrainConfig | LlmConfig, place: Any, run_key: str, loop: Loop = train_loop_per_worker
) -> str:
    """Run a loop on Ray Train workers, which `max_failures` deaths do not end.

    Called again with the same arguments it goes on from the last checkpoint, or returns at once.
    Args:
        place: what the loop takes under this name, with a `store` of checkpoints.
    Returns:
        the name of the last checkpoint, in `place.store`.
    Raises:
        TrainError: the workers failed more often than that, or another attempt would end as this one did
            (DivergedError: because of its settings).
        HaltedError: `place.goes_on` said no.
        ClaimedError: another job trains this run.
    """
    with claim(f"run {run_key}"):
        while True:
            ending = _attempt(config, run_key, functools.partial(loop, place=place))
            if "stopped" in ending:
                raise TrainError(ending["stopped"])
            if "diverged" in ending:
                raise DivergedError(ending["diverged"])
            if "halted" in ending:
                raise HaltedError(ending["halted"])
            if "checkpoint" in ending:
                return ending["checkpoint"]
            logger.warning("training goes on elsewhere: %s", ending["left"])


def _attempt(config: TrainConfig | LlmConfig, run_key: str, loop: Loop) -> dict[str, str]:
    """One Ray Train run; what the workers returned."""
    per_worker = {"CPU": float(config.cpus_per_worker)} | ({"GPU": 1.0} if config.use_gpu else {})
    cuda = {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"}  # without it cuBLAS is not deterministic
    elastic = (config.min_workers, config.num_workers)
    for name, value in RAY_TRAIN.items():
        os.environ.setdefault(name, value)
    with scratch() as nothing:  # the checkpoints are not Ray's
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
                storage_path=str(nothing),
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
    """Ray's error as one line that says what to do."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    if any("OutOfMemoryError" in line or "running low on memory" in line for line in lines):
        return (
            "the machine ran out of memory and Ray ended the workers: end what else runs there, or take a smaller "
            "train.microbatch_size; the same command goes on from the last checkpoint"
        )
    return lines[-1] if lines else repr(error)


def _release(
    settings: Settings,
    store: ObjectStore,
    config: TrainConfig,
    trained: runs.Trained,
    lineage: dict[str, Any],
    tell: Progress,
) -> tuple[str, str]:
    """Publish and register; returns the bundle's key and the version."""
    tell(trained.steps, trained.steps, "calibrating on the validation split")
    weights = store.get(runs.BUCKET, trained.weights_key)
    version, share = lineage["dataset_version"], config.memory_share
    with contextlib.closing(dataset.load(settings, version, memory_share=share)) as data:
        calibration = release.fit_calibration(config, data, weights)
        strange = release.fit_outliers(config, data, weights)
        tell(trained.steps, trained.steps, "registering the model version")
        bundle_key = release.publish(
            store,
            config,
            data,
            weights,
            calibration=calibration,
            strange=strange,
            lineage=lineage,
            metrics=trained.history[-1],
        )
    version = release.register(Registry(settings), bundle_key, lineage, trained.weights_sha256)
    return bundle_key, version


def _log_release(store: ObjectStore, mlflow: Any, run_id: str, config: TrainConfig, bundle_key: str) -> None:
    """The resolved configuration and the card, as artifacts of the MLflow run."""
    with tempfile.TemporaryDirectory() as folder:
        written = Path(folder) / "config.json"
        written.write_text(json.dumps(config.as_dict(), sort_keys=True, indent=1))
        card = bundles.fetch(store, bundle_key, Path(folder), [release.CARD])[release.CARD]
        tracking.log_files(mlflow, run_id, [written, card], "release")


def _silent(done: int, total: int, note: str) -> None:
    """No one asked how far it is."""
