"""Metrics of the ViT on the validation split, counted over all ranks."""

from contextlib import nullcontext
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F

from train.inputs.dataset import inputs
from train.inputs.sample_order import rank_slice
from train.strategies import collectives

if TYPE_CHECKING:
    from train.loop.setup import TrainContext

BATCH = 64  # images a rank


@torch.no_grad()
def validate(context: "TrainContext") -> dict[str, float]:
    """Return loss, accuracy and balanced accuracy, of the average of the weights if there is one.

    Each image is on one rank. (`no_grad`, as FSDP's views of gathered parameters do not work in `inference_mode`.)
    """
    context.strategy.module.eval()
    with context.average.in_place() if context.average else nullcontext():
        confusion_KK, loss_1 = _count(context)
        context.strategy.reshard()
    context.strategy.module.train()
    confusion_KK, loss_1 = collectives.summed(confusion_KK), collectives.summed(loss_1)
    counts_K, right_K = confusion_KK.sum(dim=1), confusion_KK.diagonal()
    present_K = counts_K > 0
    return {
        "validation_loss": float(loss_1) / len(context.data.validation),
        "validation_accuracy": float(right_K.sum() / counts_K.sum()),
        "validation_balanced_accuracy": float((right_K[present_K] / counts_K[present_K]).mean()),
    }


def _count(context: "TrainContext") -> tuple[torch.Tensor, torch.Tensor]:
    """Return this rank's confusion matrix and sum of losses."""
    images, classes = context.data.validation, len(context.data.classes)
    confusion_KK = torch.zeros(classes, classes, dtype=torch.float64, device=context.device)
    loss_1 = torch.zeros(1, dtype=torch.float64, device=context.device)
    together = BATCH * context.world_size
    for start in range(0, len(images), together):
        batch_B = np.arange(start, min(start + together, len(images)))
        mine_B = rank_slice(batch_B, rank=context.rank, world_size=context.world_size)
        used_B = mine_B if len(mine_B) else batch_B[:1]  # every rank takes part in gathering the weights
        logits_BK = context.strategy.logits(inputs(images, used_B, context.data.pixels).to(context.device))
        if not len(mine_B):
            continue
        labels_B = torch.from_numpy(images.labels_N[mine_B]).to(context.device)
        loss_1 += F.cross_entropy(logits_BK, labels_B, reduction="sum")
        cells_B = labels_B * classes + logits_BK.argmax(dim=1)
        confusion_KK += torch.bincount(cells_B, minlength=classes**2).view(classes, classes)
    return confusion_KK, loss_1
