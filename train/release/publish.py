"""Turn trained weights into a release bundle and register it as a version without alias.

The bundle: weights (safetensors), card (`data.model_card`), the package of the code that serves them, and the files
that make it an MLflow model, which loads without the project (`train.release.mlflow_files`).
"""

import hashlib
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch

from cluster.objects import ObjectStore
from cluster.releases import bundles, code_package
from cluster.releases.registry import VIT, Registry
from data.imaging.preprocess import PREPROCESS_VERSION
from data.model_card import CARD_FILE, OUTLIERS_FILE, WEIGHTS_FILE, Architecture, Calibration, ModelCard
from train.config import TrainConfig
from train.inputs.dataset import TrainingData
from train.metrics.calibration import CalibrationConfig, calibrate
from train.release import fit_ood, mlflow_files
from train.release.fit_ood import OodDetector, OutlierConfig
from train.vit.inference import features, logits, rebuild
from train.vit.model import architecture_of

CODE = "code.zip"


class ReleaseError(ValueError):
    """The bundle cannot be used by this code; the message says why in one line."""


def architecture(config: TrainConfig, data: TrainingData) -> Architecture:
    """Name the network of a run as its card does."""
    return architecture_of(config.model, classes=len(data.classes), side=data.pixels.side)


def fit_calibration(config: TrainConfig, data: TrainingData, weights: bytes) -> Calibration:
    """Calibrate the finished model on the validation split."""
    model = rebuild(architecture(config, data), weights)
    return calibrate(
        logits(model, data.validation.pixels_NHW, data.pixels), data.validation.labels_N, CalibrationConfig()
    )


def fit_outliers(config: TrainConfig, data: TrainingData, weights: bytes) -> OodDetector | None:
    """Fit the outlier score on training and validation images; None for a model without one last layer."""
    model, settings = rebuild(architecture(config, data), weights), OutlierConfig()
    chosen = np.sort(np.random.default_rng(0).permutation(len(data.train))[: settings.images])
    train_ND = features(model, data.train.pixels_NHW[chosen], data.pixels)
    validation_MD = features(model, data.validation.pixels_NHW, data.pixels)
    if train_ND is None or validation_MD is None:
        return None
    return fit_ood.fit(train_ND, data.train.labels_N[chosen], validation_MD, settings)


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
        strange: the fitted outlier score; None: the model calls no image an outlier.
        lineage: `dataset_version`, `synthetic`, `git_commit`, `run_id` and perhaps `start`, as the card names them.
        metrics: figures of the last epoch, on validation data.
    """
    files = {
        WEIGHTS_FILE: weights,
        CODE: code_package.build(),
        **mlflow_files.files(str(lineage["run_id"])),
        **({} if strange is None else {OUTLIERS_FILE: strange.as_file()}),
    }
    card = ModelCard(
        model=VIT,
        classes=tuple(data.classes),
        architecture=architecture(config, data),
        pixels=data.pixels,
        preprocess_version=PREPROCESS_VERSION,
        calibration=calibration,
        outliers=None if strange is None else strange.rule(),
        **lineage,
        metrics=dict(metrics),
        config=config.as_dict(),
        parameters=sum(tensor.numel() for tensor in safetensors.torch.load(weights).values()),
        files=digests(files),
    )
    return bundles.publish(store, {**files, CARD_FILE: card.to_json()})


def digests(files: Mapping[str, bytes]) -> dict[str, str]:
    """Compute the SHA-256 of each file, in hexadecimal, by name: the card's `files`."""
    return {name: hashlib.sha256(blob).hexdigest() for name, blob in files.items()}


def fetch(store: ObjectStore, bundle_key: str) -> tuple[ModelCard, bytes]:
    """Fetch and verify card and weights of a bundle, whatever pixels they are for.

    Raises:
        ReleaseError: this code cannot read its card.
        BundleError: it is absent, unsigned or was changed.
    """
    with tempfile.TemporaryDirectory() as folder:
        files = bundles.fetch(store, bundle_key, Path(folder), [CARD_FILE, WEIGHTS_FILE])
        try:
            card = ModelCard.from_json(files[CARD_FILE].read_bytes(), any_transform=True)
        except ValueError as error:
            raise ReleaseError(str(error)) from error
        return card, files[WEIGHTS_FILE].read_bytes()


def read(store: ObjectStore, bundle_key: str) -> tuple[ModelCard, bytes]:
    """Fetch and verify card and weights of a bundle whose pixels this code makes.

    Raises:
        ReleaseError: it was trained on other pixels than this code makes.
        BundleError: it is absent, unsigned or was changed.
    """
    card, weights = fetch(store, bundle_key)
    if card.preprocess_version != PREPROCESS_VERSION:
        raise ReleaseError(
            f"the model was trained on preprocessing {card.preprocess_version}, this code has "
            f"{PREPROCESS_VERSION}: use the code of commit {card.git_commit}"
        )
    return card, weights


def register(registry: Registry, bundle_key: str, lineage: Mapping[str, Any], weights_sha256: str) -> str:
    """Register a new version without alias; the same bundle again gives the version that it has."""
    tags = {
        "dataset_version": str(lineage["dataset_version"]),
        "git_commit": str(lineage["git_commit"]),
        "synthetic": str(lineage["synthetic"]).lower(),
        "weights_sha256": weights_sha256,
    }
    return registry.register(VIT, bundle_key, lineage["run_id"], tags)
