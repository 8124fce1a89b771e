"""Builds the network from its configuration, the same in training and in evaluation, and groups its parameters.

Serving builds it from the card with the same name and keyword arguments; both meet in the registry only.
"""

from typing import Any

import timm
import torch
from timm.optim import param_groups_layer_decay

from data.model_card import Architecture
from train.config import ModelConfig, OptimConfig
from train.config_checks import TrainConfigError
from train.vit.families import family_of

NO_DECAY = ("pos_embed", "cls_token", "reg_token", "dist_token")


def timm_kwargs(config: ModelConfig, *, classes: int, side: int) -> dict[str, Any]:
    """Return the keyword arguments that, with `config.name`, make this architecture; the card stores them.

    Dropout is not among them: it changes training and no weight.
    """
    size = {"img_size": side} if family_of(config.name).takes_img_size else {}
    return {"in_chans": 1, "num_classes": classes, **size, **config.kwargs}


def architecture_of(config: ModelConfig, *, classes: int, side: int) -> Architecture:
    """Name the network as a card does."""
    return Architecture(timm=config.name, kwargs=timm_kwargs(config, classes=classes, side=side))


def build_vit(config: ModelConfig, *, classes: int, side: int) -> torch.nn.Module:
    """Build a network with fresh weights, from torch's global generator, for single-channel images of `side` pixels.

    Raises:
        TrainConfigError: timm has no such model, it is of an unknown family, or it does not take the arguments.
    """
    kwargs = timm_kwargs(config, classes=classes, side=side)
    rates = {"drop_rate": config.drop_rate, "drop_path_rate": config.drop_path_rate}
    dropout = {name: rate for name, rate in rates.items() if rate}
    try:
        model: torch.nn.Module = timm.create_model(config.name, pretrained=False, **kwargs, **dropout)
    except (RuntimeError, TypeError, ValueError, AssertionError) as error:
        raise TrainConfigError(f"cannot build {config.name} with {kwargs}: {error}") from error
    return model


def parameter_groups(model: torch.nn.Module, config: OptimConfig) -> list[dict[str, Any]]:
    """Return parameter groups for AdamW: matrices and kernels decay; vectors, position and tokens do not.

    With layer-wise decay there are two groups a layer, each with its `lr_scale`.
    """
    named = [(name, tensor) for name, tensor in model.named_parameters() if tensor.requires_grad]
    still = [name for name, tensor in named if tensor.ndim < 2 or name.rsplit(".", 1)[-1] in NO_DECAY]
    if config.layer_decay < 1:
        return param_groups_layer_decay(model, config.weight_decay, still, layer_decay=config.layer_decay)
    return [
        {
            "params": [tensor for name, tensor in named if name not in still],
            "weight_decay": config.weight_decay,
        },
        {"params": [tensor for name, tensor in named if name in still], "weight_decay": 0.0},
    ]
