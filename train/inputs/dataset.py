"""The arrays that training needs from a dataset version, and batches cut from them.

Each worker holds the training and validation pixels as uint8, in memory or, if they are too large for it, in a mapped
file (`train/inputs/pixel_cache.py`); a batch becomes float when it is used.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from cluster.objects import ObjectStore
from cluster.settings import Settings
from data.dataset.split import Split
from data.dataset.versions import load_split, manifest
from data.imaging.preprocess import PREPROCESS_VERSION, PixelConfig, to_model_input
from train.config import TrainConfig
from train.inputs import pixel_cache
from train.inputs.augment import augment, draws


class TrainDataError(ValueError):
    """The dataset version cannot be trained on; the message says why."""


@dataclass(frozen=True, kw_only=True)
class Images:
    hashes: Sequence[str]
    pixels_NHW: np.ndarray
    labels_N: np.ndarray
    """int64, index into the classes."""
    mapped: pixel_cache.Mapped | None = None
    """Set if the pixels lie in a file."""

    def __len__(self) -> int:
        return len(self.labels_N)


@dataclass(frozen=True, kw_only=True)
class TrainingData:
    train: Images
    validation: Images
    classes: tuple[str, ...]
    pixels: PixelConfig

    def __post_init__(self) -> None:
        for name, images in (("train", self.train), ("validation", self.validation)):
            if not len(images):
                raise TrainDataError(f"the {name} split has no image: add patients, or take another seed")

    def close(self) -> None:
        """Release mapped files; their pixels must not be used afterwards."""
        for images in (self.train, self.validation):
            if images.mapped is not None:
                images.mapped.close()


def check(described: Mapping[str, Any]) -> None:
    """Refuse a version whose pixels this code would not serve.

    Raises:
        TrainDataError: it was made by another version of the preprocessing.
    """
    made_with = described["settings"]["preprocess_version"]
    if made_with != PREPROCESS_VERSION:
        raise TrainDataError(
            f"dataset version {described['version']} was made by preprocessing {made_with}, this is "
            f"{PREPROCESS_VERSION}: make a new one with `python -m jobs.etl`"
        )


def load(settings: Settings, version: str, *, memory_share: float = 1.0) -> TrainingData:
    """Read the training and validation splits of a version from the object store.

    Args:
        memory_share: a split that takes more than this share of the machine's memory is mapped from a local file.
    """
    store = ObjectStore(settings)
    described = manifest(store, version)
    limit = int(memory_share * pixel_cache.memory_bytes())
    return TrainingData(
        train=_images(store, described, "train", limit),
        validation=_images(store, described, "validation", limit),
        classes=tuple(described["classes"]),
        pixels=PixelConfig(**described["settings"]["pixels"]),
    )


def _images(store: ObjectStore, described: Mapping[str, Any], split: Split, limit: int) -> Images:
    version, side = described["version"], described["settings"]["pixels"]["side"]
    rows = sum(part["rows"] for part in described["parts"] if part["split"] == split)
    if rows * side**2 <= limit:
        table = load_split(store, version, split)
        return Images(hashes=table.sample_hashes, pixels_NHW=table.pixels_NHW, labels_N=table.labels_N)

    def fill(allocate: pixel_cache.Allocate) -> tuple[list[str], np.ndarray]:
        table = load_split(store, version, split, allocate)
        return table.sample_hashes, table.labels_N

    mapped = pixel_cache.mapped(pixel_cache.key(described, split), fill)
    return Images(hashes=mapped.hashes, pixels_NHW=mapped.pixels_NHW, labels_N=mapped.labels_N, mapped=mapped)


def class_weights(labels_N: np.ndarray, classes: int, power: float) -> np.ndarray:
    """Weight images by their class: (1 / share of the class) ** power, scaled to a mean of 1 an image.

    A class without images has weight 0.
    """
    counts_K = np.bincount(labels_N, minlength=classes).astype(np.float64)
    weights_K = np.where(counts_K > 0, (counts_K.sum() / np.maximum(counts_K, 1)) ** power, 0.0)
    return weights_K * counts_K.sum() / (weights_K * counts_K).sum()


def inputs(images: Images, indices_B: np.ndarray, pixels: PixelConfig) -> torch.Tensor:
    """Return the normalised images x_BCHW, as serving makes them."""
    return torch.from_numpy(to_model_input(images.pixels_NHW[indices_B], pixels))


def training_inputs(
    data: TrainingData, indices_B: np.ndarray, config: TrainConfig, epoch: int, device: torch.device
) -> torch.Tensor:
    """Return the normalised images on `device`, each augmented there for this epoch."""
    numbers_BD = draws([data.train.hashes[i] for i in indices_B], seed=config.seed, epoch=epoch)
    return augment(inputs(data.train, indices_B, data.pixels).to(device), numbers_BD, config.augment)
