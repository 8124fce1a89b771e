"""The families of timm that can be trained: what each takes, and where its repeated blocks are.

A family is a module of timm, such as `convnext`. FSDP, activation checkpointing, compilation and the memory
estimate work on the blocks found here. Layer-wise decay takes its layers from timm, which knows them for every
family (`group_matcher`). Heatmaps need gradients alone (`serve.classifier.saliency`), so serving needs nothing
beyond the name and keyword arguments in the card.
"""

from dataclasses import dataclass

import torch
from timm.models import is_model, is_model_in_modules

from train.config_checks import TrainConfigError


@dataclass(frozen=True, kw_only=True)
class Family:
    """The defaults are those of a Vision Transformer."""

    title: str = "a Vision Transformer"
    """Kind of network, for the model card."""
    takes_img_size: bool = True
    """Whether `timm.create_model` takes the side of the image as `img_size`; other networks take images of any side."""
    block_list: str | None = "blocks"
    """Last part of the names of the lists that hold the repeated blocks; None: there are no such lists, so that FSDP
    gathers the whole network at once."""


FAMILIES = {
    "beit": Family(),
    "byobnet": Family(title="a convolutional network", block_list=None),
    "convnext": Family(title="a ConvNeXt", takes_img_size=False),
    "crossvit": Family(),
    "deepseek_vit": Family(),
    "deit": Family(),
    "efficientformer": Family(),
    "efficientformer_v2": Family(),
    "efficientvit_msra": Family(),
    "eva": Family(),
    "gcvit": Family(),
    "gemma4_vit": Family(),
    "hiera": Family(),
    "levit": Family(),
    "maxxvit": Family(),
    "mobilevit": Family(block_list=None),
    "mvitv2": Family(),
    "naflexvit": Family(),
    "nest": Family(block_list=None),
    "pit": Family(),
    "qwen3_vit": Family(),
    "swiftformer": Family(),
    "swin_transformer": Family(),
    "swin_transformer_v2": Family(),
    "swin_transformer_v2_cr": Family(),
    "tnt": Family(),
    "visformer": Family(block_list=None),
    "vision_transformer": Family(),
    "vision_transformer_hybrid": Family(),
    "vision_transformer_relpos": Family(),
    "vision_transformer_sam": Family(),
    "vitamin": Family(),
    "volo": Family(block_list=None),
    "xcit": Family(),
}
"""By the name of timm's module. A further family is one row here, once the smoke test trains it."""


def family_of(name: str) -> Family:
    """Return the family of a model by timm's name of the model.

    Raises:
        TrainConfigError: timm has no such model, or its family is not among these; the message lists the families.
    """
    module = next((module for module in FAMILIES if is_model_in_modules(name, [module])), None)
    if module is None:
        problem = "is of another family" if is_model(name) else "is no model of timm"
        raise TrainConfigError(f"model.name {name} {problem}: choose a model of {', '.join(FAMILIES)}")
    return FAMILIES[module]


def blocks(model: torch.nn.Module, name: str) -> list[torch.nn.Module]:
    """Return the repeated blocks of a network, in order: those of its only list, or those of all its stages.

    Args:
        name: timm's name of the model.
    """
    block_list = family_of(name).block_list
    lists = [part for path, part in model.named_modules() if path.rsplit(".", 1)[-1] == block_list]
    return [block for part in lists for block in part.children()]
