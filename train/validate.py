"""Validation after each epoch, counted over all ranks."""

from contextlib import nullcontext

import numpy as np
import torch
import torch.nn.functional as F

from train import parallel
from train.dataset import inputs
from train.sample_order import rank_slice
from train.setup import Setup

BATCH = 64  # images a rank


@torch.no_grad()
def validate(setup: Setup) -> dict[str, float]:
    """Compute loss, accuracy and balanced accuracy, each image on one rank; of the averaged weights if there are any.

    (`no_grad`, as `inference_mode` and the views that FSDP keeps of gathered parameters do not go together.)
    """
    setup.strategy.module.eval()
    with setup.average.in_place() if setup.average else nullcontext():
        confusion_KK, loss_1 = _ask(setup)
        setup.strategy.reshard()
    confusion_KK, loss_1 = parallel.summed(confusion_KK), parallel.summed(loss_1)
    counts_K, right_K = confusion_KK.sum(dim=1), confusion_KK.diagonal()
    present_K = counts_K > 0
    return {
        "validation_loss": float(loss_1) / len(setup.data.validation),
        "validation_accuracy": float(right_K.sum() / counts_K.sum()),
        "validation_balanced_accuracy": float((right_K[present_K] / counts_K[present_K]).mean()),
    }


def _ask(setup: Setup) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute this rank's confusion matrix and sum of losses."""
    images, classes = setup.data.validation, len(setup.data.classes)
    confusion_KK = torch.zeros(classes, classes, dtype=torch.float64, device=setup.device)
    loss_1 = torch.zeros(1, dtype=torch.float64, device=setup.device)
    together = BATCH * setup.world_size
    for start in range(0, len(images), together):
        batch_B = np.arange(start, min(start + together, len(images)))
        mine_B = rank_slice(batch_B, rank=setup.rank, world_size=setup.world_size)
        used_B = mine_B if len(mine_B) else batch_B[:1]  # every rank takes part in gathering the weights
        logits_BK = setup.strategy.logits(inputs(images, used_B, setup.data.pixels).to(setup.device))
        if not len(mine_B):
            continue
        labels_B = torch.from_numpy(images.labels_N[mine_B]).to(setup.device)
        loss_1 += F.cross_entropy(logits_BK, labels_B, reduction="sum")
        cells_B = labels_B * classes + logits_BK.argmax(dim=1)
        confusion_KK += torch.bincount(cells_B, minlength=classes**2).view(classes, classes)
    return confusion_KK, loss_1
