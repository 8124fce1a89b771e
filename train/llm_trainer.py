"""Fine-tune the language model on the cluster: the driver's side, up to the learned weights.

`finetune` can be called again at any time with the same arguments: it continues what was interrupted and returns
finished work at once. The caller has joined the Ray cluster, and releases what was learned.
"""

import functools
import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch

from cluster import bundles
from cluster.objects import ObjectStore, arrow_filesystem
from cluster.settings import Settings
from train import runs, tracking
from train.checkpoint import WEIGHTS_NAME
from train.checkpoint_store import CheckpointStore
from train.inference import weights_sha256
from train.llm_config import LlmConfig
from train.llm_loop import LlmPlace, llm_loop_per_worker
from train.llm_tokens import Pair
from train.scratch import scratch
from train.trainer import TrainError, fit_on_workers, last_state

EXPERIMENT = "xray-llm"


@dataclass(frozen=True, kw_only=True)
class Learned:
    """What a finished fine-tuning leaves."""

    run: runs.Run
    run_id: str
    """MLflow's."""
    resumed: bool
    """Whether the run had been begun before."""
    trained: runs.Trained
    weights: dict[str, torch.Tensor]
    """What was learned, by name."""


@contextmanager
def base_model(settings: Settings, bundle_key: str) -> Iterator[Path]:
    """The files of a registered language model, verified, in a folder that goes away again.

    Raises:
        BundleError: it is absent, unsigned, or a file of it was changed.
    """
    with scratch() as folder:
        bundles.fetch(ObjectStore(settings), bundle_key, folder)
        yield folder


def data_version(base_key: str, pairs: Sequence[Pair]) -> str:
    """Hash of what is learned from what."""
    told = json.dumps([base_key, sorted(pairs)]).encode()
    return hashlib.sha256(told).hexdigest()[:16]


def finetune(
    settings: Settings,
    config: LlmConfig,
    base_key: str,
    pairs: Sequence[Pair],
    run_name: str | None,
    *,
    fresh: bool,
    params: dict[str, str],
) -> Learned:
    """Run the workers to the end.

    Args:
        base_key: the bundle of the model to start from.
        run_name: continued when it is unfinished; None: made of settings and data.
        params: further parameters of the MLflow run.
    Raises:
        TrainError, RunError, TrackingError: one line each.
    """
    store, version = ObjectStore(settings), data_version(base_key, pairs)
    name = run_name or runs.default_name(config, version, kind="llm")
    run, begun = runs.begin(store, name, config, version, fresh=fresh)
    mlflow = tracking.client(settings.mlflow_tracking_uri)
    told = tracking.flat(config.as_dict()) | {"data_version": version, "pairs": len(pairs)} | params
    run_id = tracking.start_run(mlflow, run.key, run.name, told, experiment=EXPERIMENT)
    done = runs.trained(store, run) or _fit(settings, store, config, base_key, pairs, run, run_id)
    with tracking.answering(mlflow):
        tracking.log_rows(mlflow, run_id, done.history)
    weights = safetensors.torch.load(store.get(runs.BUCKET, done.weights_key))
    return Learned(run=run, run_id=run_id, resumed=begun, trained=done, weights=weights)


def _fit(
    settings: Settings,
    store: ObjectStore,
    config: LlmConfig,
    base_key: str,
    pairs: Sequence[Pair],
    run: runs.Run,
    run_id: str,
) -> runs.Trained:
    mlflow = tracking.client(settings.mlflow_tracking_uri)
    with tracking.answering(mlflow):
        tracking.set_status(mlflow, run_id, "RUNNING")
    place = LlmPlace(
        base=functools.partial(base_model, settings, base_key),
        pairs=pairs,
        mlflow_tracking_uri=settings.mlflow_tracking_uri,
        mlflow_run_id=run_id,
        store=CheckpointStore(
            arrow_filesystem(settings),
            store.path(runs.BUCKET, run.checkpoints),
            witness=store.path(runs.BUCKET, runs.pointer(run.name)),
        ),
    )
    try:
        last = fit_on_workers(config, place, run.key, llm_loop_per_worker)
        host, weights = last_state(place.store, last)
    except TrainError as error:
        try:
            with tracking.answering(mlflow):
                tracking.set_status(mlflow, run_id, "FAILED")
        except tracking.TrackingError as also:
            raise TrainError(f"{error}; and {also}") from error
        raise
    trained = runs.Trained(
        weights_key=f"{run.checkpoints}/{last}/{WEIGHTS_NAME}",
        weights_sha256=weights_sha256(safetensors.torch.load(weights)),
        steps=host["step"],
        history=host["history"],
    )
    runs.note_trained(store, run, trained)
    return trained
