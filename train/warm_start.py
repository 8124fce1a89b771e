"""The first weights of a run that does not begin from scratch: the champion's, or those that timm has pretrained.

The driver fetches them once and keeps them beside the run, so that every worker and every later attempt begins with
the same ones, whatever the champion is by then.
"""

import hashlib
import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import safetensors.torch
import timm
import torch

from cluster import bundles
from cluster.objects import ObjectStore
from cluster.registry import VIT, Registry
from cluster.settings import Settings
from train.config import ModelConfig, TrainConfigError
from train.model import timm_kwargs

WEIGHTS_NAME, NOTE_NAME = "first-weights.safetensors", "first-weights.json"
CARD, BUNDLED = "card.json", "model.safetensors"


def pin(
    settings: Settings,
    store: ObjectStore,
    folder: tuple[str, str],
    config: ModelConfig,
    *,
    classes: Sequence[str],
    side: int,
) -> dict[str, str] | None:
    """Fetch the first weights unless that was done before in this run.

    Args:
        folder: bucket and key prefix of the run.
    Returns:
        what they are: `from`, `key` and `sha256`; None from scratch.
    Raises:
        TrainConfigError: there are none, or they are of another model; one line that says what to do.
    """
    if config.start == "scratch":
        return None
    bucket, prefix = folder
    try:
        noted: dict[str, str] = store.get_json(bucket, f"{prefix}/{NOTE_NAME}")
        return noted
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
    """The weights that `pin` kept, on a worker.

    Raises:
        TrainConfigError: they were changed.
    """
    blob = ObjectStore(settings).get(bucket, note["key"])
    if hashlib.sha256(blob).hexdigest() != note["sha256"]:
        raise TrainConfigError(f"{note['key']} was changed: start the run with --fresh")
    found: dict[str, torch.Tensor] = safetensors.torch.load(blob)
    return found


def champion(
    settings: Settings, store: ObjectStore, config: ModelConfig, *, classes: Sequence[str], side: int
) -> tuple[bytes, str]:
    """Weights and name of the registry's champion, which has to be the same model over the same classes."""
    registry = Registry(settings)
    version = registry.version_by_alias(VIT, "champion")
    if version is None:
        raise TrainConfigError(
            f"model.start champion: no version of {VIT} is champion yet; train the first one with "
            "--train.model.start scratch"
        )
    with tempfile.TemporaryDirectory() as folder:
        files = bundles.fetch(store, registry.bundle_key(VIT, version), Path(folder), [CARD, BUNDLED])
        card, weights = json.loads(files[CARD].read_text()), files[BUNDLED].read_bytes()
    check(card, config, classes=classes, side=side, version=version)
    return weights, f"{VIT}/{version}"


def check(
    card: Mapping[str, Any], config: ModelConfig, *, classes: Sequence[str], side: int, version: str
) -> None:
    """Refuse a champion of another architecture or taxonomy."""
    advice = "take its settings, or --train.model.start scratch"
    mine = {"timm": config.name, "kwargs": timm_kwargs(config, classes=len(classes), side=side)}
    theirs = {name: card["architecture"][name] for name in mine}
    if list(card["classes"]) != list(classes):
        raise TrainConfigError(
            f"model.start champion: {VIT}/{version} knows the classes {', '.join(card['classes'])}, the dataset has "
            f"{', '.join(classes)}: {advice}"
        )
    if theirs != mine:
        raise TrainConfigError(
            f"model.start champion: {VIT}/{version} is {theirs['timm']} with {theirs['kwargs']}, this run is "
            f"{mine['timm']} with {mine['kwargs']}: {advice}"
        )


def pretrained(config: ModelConfig, *, classes: int, side: int) -> bytes:
    """timm's weights, made to take one channel and this side, with a new head, as safetensors.

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
    return safetensors.torch.save({name: one.contiguous() for name, one in model.state_dict().items()})


def _root(error: BaseException) -> BaseException:
    """What began it: the libraries on the way try again and say something else at the end."""
    before = error.__cause__ or error.__context__
    return error if before is None else _root(before)
