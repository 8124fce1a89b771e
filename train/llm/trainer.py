"""Fine-tune the language model on the cluster: the driver's side, up to the learned weights.

`finetune` can be called again at any time with the same arguments: it continues an interrupted run and returns a
finished one at once. The caller has joined the Ray cluster, and releases the learned weights.
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

from cluster.objects import ObjectStore
from cluster.releases import bundles
from cluster.releases.registry import LLM
from cluster.settings import Settings
from train.checkpoints.temp_folders import scratch
from train.llm.config import LlmConfig
from train.llm.tokenise import Pair
from train.llm.worker import LlmInputs
from train.runs import run_store
from train.runs.workers import checkpoints_of, run_status, train_run
from train.tracking import mlflow_runs

EXPERIMENT = LLM


@dataclass(frozen=True, kw_only=True)
class Learned:
    """Result of a finished fine-tuning."""

    run: run_store.Run
    run_id: str
    """MLflow's."""
    resumed: bool
    """Whether the run had been begun before."""
    trained: run_store.Trained
    weights: dict[str, torch.Tensor]
    """The learned parameters, by name."""


@contextmanager
def base_model(settings: Settings, bundle_key: str) -> Iterator[Path]:
    """Provide the verified files of a registered language model in a temporary folder.

    Raises:
        BundleError: it is absent, unsigned, or a file of it was changed.
    """
    with scratch() as folder:
        bundles.fetch(ObjectStore(settings), bundle_key, folder)
        yield folder


def data_version(base_key: str, pairs: Sequence[Pair]) -> str:
    """Hash the base model's bundle and the pairs; 16 hexadecimal digits."""
    return hashlib.sha256(json.dumps([base_key, sorted(pairs)]).encode()).hexdigest()[:16]


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
    """Fine-tune to the last epoch.

    Args:
        base_key: the bundle of the model to start from.
        run_name: an unfinished run is continued; None: a name made of settings and data.
        params: further parameters of the MLflow run.
    Raises:
        TrainError, RunError, TrackingError: one line each.
    """
    store, version = ObjectStore(settings), data_version(base_key, pairs)
    name = run_name or run_store.default_name(config, version, kind="llm")
    run, begun = run_store.begin(store, name, config, version, fresh=fresh)
    mlflow = mlflow_runs.client(settings.mlflow_tracking_uri)
    settings_and_data = mlflow_runs.flat(config.as_dict()) | {"data_version": version, "pairs": len(pairs)}
    run_id = mlflow_runs.start_run(
        mlflow, run.key, run.name, settings_and_data | params, experiment=EXPERIMENT
    )
    trained = run_store.trained(store, run)
    if trained is None:
        inputs = LlmInputs(
            base=functools.partial(base_model, settings, base_key),
            pairs=pairs,
            mlflow_tracking_uri=settings.mlflow_tracking_uri,
            mlflow_run_id=run_id,
            store=checkpoints_of(settings, store, run),
        )
        with run_status(mlflow, run_id):
            trained = train_run(store, config, run, inputs)
    with mlflow_runs.answering(mlflow):
        mlflow_runs.log_rows(mlflow, run_id, trained.history)
    weights = safetensors.torch.load(store.get(run_store.BUCKET, trained.weights_key))
    return Learned(run=run, run_id=run_id, resumed=begun, trained=trained, weights=weights)
