"""Turn trained weights into a release bundle and register it as a version of `xray-vit` without alias.

The bundle: weights (safetensors), card (JSON), the package of the code that serves them, and what makes it an MLflow
model that loads without the project (`train.export_mlflow`).
"""

import hashlib
import json
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch

from cluster import bundles, code_package
from cluster.objects import ObjectStore
from cluster.registry import VIT, Registry
from data.preprocess import PREPROCESS_VERSION
from train import export_mlflow, outliers
from train.calibration import Calibration, CalibrationConfig, calibrate
from train.config import TrainConfig
from train.dataset import TrainingData
from train.inference import features, logits, rebuild
from train.model import timm_kwargs
from train.outliers import OodDetector, OutlierConfig

CARD, WEIGHTS, CODE = "card.json", "model.safetensors", "code.zip"
FORMAT = 1


class ReleaseError(ValueError):
    """The bundle cannot be used by this code; the message says why in one line."""


def architecture(config: TrainConfig, data: TrainingData) -> dict[str, Any]:
    """What `timm.create_model` takes to build this model again."""
    return {
        "timm": config.model.name,
        "kwargs": timm_kwargs(config.model, classes=len(data.classes), side=data.pixels.side),
    }


def fit_calibration(config: TrainConfig, data: TrainingData, weights: bytes) -> Calibration:
    """Ask the finished model about the validation split, and calibrate it on that."""
    model = rebuild(architecture(config, data), weights)
    return calibrate(
        logits(model, data.validation.pixels_NHW, data.pixels), data.validation.labels_N, CalibrationConfig()
    )


def fit_outliers(config: TrainConfig, data: TrainingData, weights: bytes) -> OodDetector | None:
    """Ask the finished model about training and validation images; None where its features cannot be had."""
    model, settings = rebuild(architecture(config, data), weights), OutlierConfig()
    chosen = np.sort(np.random.default_rng(0).permutation(len(data.train))[: settings.images])
    train_ND = features(model, data.train.pixels_NHW[chosen], data.pixels)
    validation_MD = features(model, data.validation.pixels_NHW, data.pixels)
    if train_ND is None or validation_MD is None:
        return None
    return outliers.fit(train_ND, data.train.labels_N[chosen], validation_MD, settings)


def publish(
    store: ObjectStore,
    config: TrainConfig,
    data: TrainingData,
    weights: bytes,
    *,
    calibration: Calibration,
    strange: OodDetector | None,
    lineage: Mapping[str, Any],
    metrics: Mapping[str, float],
) -> str:
    """Publish the bundle and return its key; the same content is the same bundle.

    Args:
        strange: how images unlike the training images are told; None: nobody tells.
        lineage: `dataset_version`, `synthetic`, `git_commit` and `run_id`, as the card names them.
        metrics: of the last epoch, on validation data.
    """
    files = {
        WEIGHTS: weights,
        CODE: code_package.build(),
        **export_mlflow.files(str(lineage["run_id"]), WEIGHTS, CARD),
        **({} if strange is None else {outliers.FILE: strange.as_file()}),
    }
    card = {
        "format": FORMAT,
        "model": VIT,
        "classes": list(data.classes),
        "architecture": architecture(config, data),
        "pixels": asdict(data.pixels),
        "preprocess_version": PREPROCESS_VERSION,
        "calibration": asdict(calibration),
        "outliers": None if strange is None else strange.as_card(),
        **lineage,
        "metrics": dict(metrics),
        "config": config.as_dict(),
        "parameters": sum(one.numel() for one in safetensors.torch.load(weights).values()),
        "files": {name: hashlib.sha256(blob).hexdigest() for name, blob in files.items()},
    }
    return bundles.publish(store, {**files, CARD: json.dumps(card, sort_keys=True, indent=1).encode()})


def fetch(store: ObjectStore, bundle_key: str) -> tuple[dict[str, Any], bytes]:
    """Card and weights of a bundle, verified, whatever pixels they are for.

    Raises:
        BundleError: it is absent, unsigned or was changed.
    """
    with tempfile.TemporaryDirectory() as folder:
        files = bundles.fetch(store, bundle_key, Path(folder), [CARD, WEIGHTS])
        card: dict[str, Any] = json.loads(files[CARD].read_bytes())
        return card, files[WEIGHTS].read_bytes()


def read(store: ObjectStore, bundle_key: str) -> tuple[dict[str, Any], bytes]:
    """Card and weights of a bundle, verified.

    Raises:
        ReleaseError: it was trained on other pixels than this code makes.
        BundleError: it is absent, unsigned or was changed.
    """
    card, weights = fetch(store, bundle_key)
    if card["preprocess_version"] != PREPROCESS_VERSION:
        raise ReleaseError(
            f"the model was trained on preprocessing {card['preprocess_version']}, this code has "
            f"{PREPROCESS_VERSION}: use the code of commit {card['git_commit']}"
        )
    return card, weights


def register(registry: Registry, bundle_key: str, lineage: Mapping[str, Any], weights_sha256: str) -> str:
    """A new version without alias; the same bundle again gives the version that it has."""
    tags = {
        "dataset_version": str(lineage["dataset_version"]),
        "git_commit": str(lineage["git_commit"]),
        "synthetic": str(lineage["synthetic"]).lower(),
        "weights_sha256": weights_sha256,
    }
    return registry.register(VIT, bundle_key, lineage["run_id"], tags)
