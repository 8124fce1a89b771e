"""Train the ViT on the cluster and register the result: the driver's side.

`train` can be called again at any time with the same arguments: it continues an interrupted run, repeats nothing
that is done, and returns a finished run at once. The caller has joined the Ray cluster.
"""

import contextlib
import functools
import json
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from cluster.objects import ObjectStore
from cluster.progress import OnProgress, silent
from cluster.releases import bundles
from cluster.releases.registry import Registry
from cluster.settings import Settings
from data.dataset.versions import manifest
from train.config import TrainConfig
from train.inputs import dataset
from train.release import publish
from train.runs import run_store
from train.runs.worker import VitInputs
from train.runs.workers import checkpoints_of, run_status, train_run
from train.tracking import mlflow_runs, provenance
from train.vit import warm_start
from train.vit.model import build_vit


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
    progress: OnProgress = silent,
) -> TrainOutcome:
    """Train, calibrate, publish the bundle and register the version, without alias.

    Args:
        run_name: an unfinished run is continued, a finished one returned; `runs.default_name` gives a name.
        fresh: start anew under the same name.
        uncommitted: the code's difference from that commit, for MLflow; empty: none; None: unknown.
        progress: called with steps done, steps in all and a note when the workers are done.
    Raises:
        TrainError, TrainConfigError, TrainDataError, VersionError, RunError, TrackingError: one line each.
    """
    store = ObjectStore(settings)
    described = manifest(store, dataset_version)
    check(config, described)
    run, begun = run_store.begin(store, run_name, config, dataset_version, fresh=fresh)
    if (outcome := run_store.finished(store, run)) is not None:
        return TrainOutcome(**{**outcome, "resumed": True})
    start = first_weights(settings, store, config, described, run)
    mlflow = mlflow_runs.client(settings.mlflow_tracking_uri)
    origin = {"dataset_version": dataset_version, "git_commit": git_commit}
    run_id = mlflow_runs.start_run(mlflow, run.key, run.name, mlflow_runs.flat(config.as_dict()) | origin)
    with mlflow_runs.answering(mlflow):
        provenance.log(mlflow, run_id, settings, described, uncommitted)
    trained = run_store.trained(store, run)
    if trained is None:
        inputs = inputs_of(settings, store, config, run, run_id, start)
        with run_status(mlflow, run_id):
            trained = train_run(store, config, run, inputs)
    with mlflow_runs.answering(mlflow):
        mlflow_runs.log_rows(mlflow, run_id, trained.history)
    lineage = {**origin, "synthetic": bool(described["synthetic"]), "run_id": run_id}
    lineage |= {"start": start["from"]} if start else {}
    bundle_key, version = _release(settings, store, config, trained, lineage, progress)
    with mlflow_runs.answering(mlflow):
        _log_release(store, mlflow, run_id, config, bundle_key)
        mlflow_runs.set_status(mlflow, run_id, "FINISHED")
    done = TrainOutcome(
        run=run.name,
        run_id=run_id,
        resumed=begun,
        model_version=version,
        steps=trained.steps,
        weights_sha256=trained.weights_sha256,
        bundle_key=bundle_key,
    )
    run_store.note_finished(store, run, asdict(done))
    return done


def check(config: TrainConfig, described: dict[str, Any]) -> None:
    """Refuse within a second what each worker would refuse after its start, `max_failures` times.

    Raises:
        TrainDataError, TrainConfigError: dataset version or model cannot be trained.
    """
    dataset.check(described)
    with torch.device("meta"):
        build_vit(
            config.model, classes=len(described["classes"]), side=described["settings"]["pixels"]["side"]
        )


def first_weights(
    settings: Settings, store: ObjectStore, config: TrainConfig, described: dict[str, Any], run: run_store.Run
) -> dict[str, str] | None:
    """Fetch the initial weights of the run; see `train.vit.warm_start.pin`. None from scratch."""
    return warm_start.pin(
        settings,
        store,
        (run_store.BUCKET, run.folder),
        config.model,
        classes=described["classes"],
        side=described["settings"]["pixels"]["side"],
    )


def inputs_of(
    settings: Settings,
    store: ObjectStore,
    config: TrainConfig,
    run: run_store.Run,
    run_id: str | None,
    start: dict[str, str] | None,
) -> VitInputs:
    """Return where the workers of a run find its data, initial weights and checkpoints, and send its metrics.

    Args:
        run_id: MLflow's; None: metrics are in the checkpoints only.
        start: as `first_weights` returns it.
    """
    return VitInputs(
        load=functools.partial(dataset.load, settings, run.dataset_version, memory_share=config.memory_share),
        start=functools.partial(warm_start.read, settings, run_store.BUCKET, start) if start else None,
        mlflow_tracking_uri=settings.mlflow_tracking_uri,
        mlflow_run_id=run_id,
        store=checkpoints_of(settings, store, run),
    )


def _release(
    settings: Settings,
    store: ObjectStore,
    config: TrainConfig,
    trained: run_store.Trained,
    lineage: dict[str, Any],
    tell: OnProgress,
) -> tuple[str, str]:
    """Calibrate, publish and register.

    Returns:
        the bundle's key and the version.
    """
    tell(trained.steps, trained.steps, "calibrating on the validation split")
    weights = store.get(run_store.BUCKET, trained.weights_key)
    version, share = lineage["dataset_version"], config.memory_share
    with contextlib.closing(dataset.load(settings, version, memory_share=share)) as data:
        calibration = publish.fit_calibration(config, data, weights)
        strange = publish.fit_outliers(config, data, weights)
        tell(trained.steps, trained.steps, "registering the model version")
        bundle_key = publish.publish(
            store,
            config,
            data,
            weights,
            calibration=calibration,
            strange=strange,
            lineage=lineage,
            metrics=trained.history[-1],
        )
    version = publish.register(Registry(settings), bundle_key, lineage, trained.weights_sha256)
    return bundle_key, version


def _log_release(store: ObjectStore, mlflow: Any, run_id: str, config: TrainConfig, bundle_key: str) -> None:
    """Log the resolved configuration and the card as artifacts of the MLflow run."""
    with tempfile.TemporaryDirectory() as folder:
        written = Path(folder) / "config.json"
        written.write_text(json.dumps(config.as_dict(), sort_keys=True, indent=1))
        card = bundles.fetch(store, bundle_key, Path(folder), [publish.CARD_FILE])[publish.CARD_FILE]
        mlflow_runs.log_files(mlflow, run_id, [written, card], "release")
