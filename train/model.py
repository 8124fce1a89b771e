"""The Vision Transformer: built from its configuration, the same in training and in evaluation.

Serving builds it from the card with the same name and keyword arguments; both meet in the registry only.
"""

from typing import Any

import timm
import torch
from timm.optim import param_groups_layer_decay

from train.config import ModelConfig, OptimConfig, TrainConfigError

NO_DECAY = ("pos_embed", "cls_token", "reg_token", "dist_token")


def timm_kwargs(config: ModelConfig, *, classes: int, side: int) -> dict[str, Any]:
    """Keyword arguments that, with `config.name`, make this architecture; the card stores them.

    Dropout is not among them: it changes training and no weight.
    """
    return {"in_chans": 1, "num_classes": classes, "img_size": side, **config.kwargs}


def build_vit(config: ModelConfig, *, classes: int, side: int) -> torch.nn.Module:
    """A ViT with fresh weights, from torch's global generator, for single-channel images of `side` pixels.

    Raises:
        TrainConfigError: timm has no such model, it does not take the arguments, or it has no attention.
    """
    kwargs = timm_kwargs(config, classes=classes, side=side)
    rates = {"drop_rate": config.drop_rate, "drop_path_rate": config.drop_path_rate}
    dropout = {name: rate for name, rate in rates.items() if rate}
    try:
        model: torch.nn.Module = timm.create_model(config.name, pretrained=False, **kwargs, **dropout)
    except (RuntimeError, TypeError, ValueError, AssertionError) as error:
        raise TrainConfigError(f"cannot build {config.name} with {kwargs}: {error}") from error
    if not any("attention" in type(one).__name__.lower() for one in model.modules()):
        raise TrainConfigError(f"{config.name} has no attention: choose one of timm's Vision Transformers")
    return model


def parameter_groups(model: torch.nn.Module, config: OptimConfig) -> list[dict[str, Any]]:
    """Parameter groups for AdamW: matrices and kernels decay; vectors, position and tokens do not.

    With layer-wise decay there are two groups a layer, each with its `lr_scale`.
    """
    named = [(name, one) for name, one in model.named_parameters() if one.requires_grad]
    still = [name for name, one in named if one.ndim < 2 or name.rsplit(".", 1)[-1] in NO_DECAY]
    if config.layer_decay < 1:
        groups: list[dict[str, Any]] = param_groups_layer_decay(
            model, config.weight_decay, still, layer_decay=config.layer_decay
        )
        return groups
    return [
        {"params": [one for name, one in named if name not in still], "weight_decay": config.weight_decay},
        {"params": [one for name, one in named if name in still], "weight_decay": 0.0},
    ]
