"""The first weights of a run that does not begin from scratch: the champion's, or timm's pretrained ones.

The driver fetches them once and stores them beside the run, so that every worker and every later attempt begins with
the same ones, whatever the champion is by then.
"""

import hashlib
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import httpx
import safetensors.torch
import timm
import torch

from cluster.objects import ObjectStore
from cluster.releases import bundles
from cluster.releases.registry import VIT, Registry
from cluster.settings import Settings
from data.model_card import CARD_FILE, WEIGHTS_FILE, CardError, ModelCard
from train.config import ModelConfig
from train.config_checks import TrainConfigError
from train.vit.model import architecture_of, timm_kwargs

WEIGHTS_NAME, NOTE_NAME = "first-weights.safetensors", "first-weights.json"


def pin(
    settings: Settings,
    store: ObjectStore,
    folder: tuple[str, str],
    config: ModelConfig,
    *,
    classes: Sequence[str],
    side: int,
) -> dict[str, str] | None:
    """Fetch the first weights and store them, unless this run did so before.

    Args:
        folder: bucket and key prefix of the run.
    Returns:
        their `from`, `key` and `sha256`; None from scratch.
    Raises:
        TrainConfigError: there are none, or they belong to another model; one line that says what to do.
    """
    if config.start == "scratch":
        return None
    bucket, prefix = folder
    try:
        return store.get_json(bucket, f"{prefix}/{NOTE_NAME}")
    except FileNotFoundError:
        weights, origin = _fetch(settings, store, config, classes=classes, side=side)
    key = f"{prefix}/{WEIGHTS_NAME}"
    store.put(bucket, key, weights)
    note = {"from": origin, "key": key, "sha256": hashlib.sha256(weights).hexdigest()}
    store.put_json(bucket, f"{prefix}/{NOTE_NAME}", note)
    return note


def _fetch(
    settings: Settings, store: ObjectStore, config: ModelConfig, *, classes: Sequence[str], side: int
) -> tuple[bytes, str]:
    if config.start == "champion":
        return champion(settings, store, config, classes=classes, side=side)
    return pretrained(config, classes=len(classes), side=side), f"timm {config.name}"


def read(settings: Settings, bucket: str, note: Mapping[str, str]) -> dict[str, torch.Tensor]:
    """Read the weights that `pin` stored, on a worker.

    Raises:
        TrainConfigError: they were changed.
    """
    blob = ObjectStore(settings).get(bucket, note["key"])
    if hashlib.sha256(blob).hexdigest() != note["sha256"]:
        raise TrainConfigError(f"{note['key']} was changed: start the run with --fresh")
    return safetensors.torch.load(blob)


def champion(
    settings: Settings, store: ObjectStore, config: ModelConfig, *, classes: Sequence[str], side: int
) -> tuple[bytes, str]:
    """Fetch weights and name of the registry's champion, which must be the same model over the same classes."""
    registry = Registry(settings)
    version = registry.version_by_alias(VIT, "champion")
    if version is None:
        raise TrainConfigError(
            f"model.start champion: no version of {VIT} is champion yet; train the first one with "
            "--train.model.start scratch"
        )
    with tempfile.TemporaryDirectory() as folder:
        key = registry.bundle_key(VIT, version)
        files = bundles.fetch(store, key, Path(folder), [CARD_FILE, WEIGHTS_FILE])
        try:
            card = ModelCard.from_json(files[CARD_FILE].read_bytes(), any_transform=True)
        except CardError as error:
            raise TrainConfigError(f"model.start champion: {VIT}/{version}: {error}") from error
        weights = files[WEIGHTS_FILE].read_bytes()
    check(card, config, classes=classes, side=side, version=version)
    return weights, f"{VIT}/{version}"


def check(card: ModelCard, config: ModelConfig, *, classes: Sequence[str], side: int, version: str) -> None:
    """Refuse a champion of another architecture or taxonomy."""
    advice = "take its settings, or --train.model.start scratch"
    wanted = architecture_of(config, classes=len(classes), side=side)
    if card.classes != tuple(classes):
        raise TrainConfigError(
            f"model.start champion: {VIT}/{version} knows the classes {', '.join(card.classes)}, the dataset has "
            f"{', '.join(classes)}: {advice}"
        )
    if card.architecture != wanted:
        raise TrainConfigError(
            f"model.start champion: {VIT}/{version} is {card.architecture.timm} with {card.architecture.kwargs}, this "
            f"run is {wanted.timm} with {wanted.kwargs}: {advice}"
        )


def pretrained(config: ModelConfig, *, classes: int, side: int) -> bytes:
    """Load timm's weights, adapted to one channel and this side, with a new head, as safetensors.

    `model.kwargs` may name a file instead of the internet: {"pretrained_cfg_overlay": {"file": PATH}}.
    """
    kwargs = timm_kwargs(config, classes=classes, side=side)
    try:
        model = timm.create_model(config.name, pretrained=True, **kwargs)
    except (OSError, RuntimeError, httpx.HTTPError) as error:
        raise TrainConfigError(
            f"model.start timm: the weights of {config.name} cannot be had here "
            f"({' '.join(str(_root(error)).split())[:160]}): it needs the internet once, or --train.model.start scratch"
        ) from error
    return safetensors.torch.save({name: tensor.contiguous() for name, tensor in model.state_dict().items()})


def _root(error: BaseException) -> BaseException:
    """Find the first error of a chain: the libraries in between retry and report something else at the end."""
    cause = error.__cause__ or error.__context__
    return error if cause is None else _root(cause)
