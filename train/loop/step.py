"""One update of the ViT on one global batch: microbatches, the exact weighted mean, mixup, average of the weights."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F

from train.checkpoints.state import Progress
from train.inputs.dataset import training_inputs
from train.inputs.mixup import Blend
from train.inputs.sample_order import rank_slice
from train.loop.interfaces import Speed, TrainingDivergedError, rate_at

if TYPE_CHECKING:
    from train.loop.setup import TrainContext


@dataclass(frozen=True, kw_only=True)
class Micro:
    """Images that pass through the model at once."""

    x_BCHW: torch.Tensor
    targets_BK: torch.Tensor
    """Probabilities of the classes; two of them are positive where images are blended."""
    weights_B: torch.Tensor
    """0 for an image that only lets a rank without images take part."""


def update(
    context: "TrainContext", progress: Progress, batch_B: np.ndarray, speed: Speed
) -> tuple[float, float]:
    """Apply one update on one global batch.

    Returns:
        loss and weight, each summed over this rank's images.
    Raises:
        TrainingDivergedError: the gradient is NaN or infinite, on all ranks alike.
    """
    epoch = progress.position.epoch
    total = float(_weights(context, context.blend(epoch), batch_B).sum())
    parts = list(microbatches(context, batch_B))
    sums_2 = torch.zeros(2, dtype=torch.float64, device=context.device)
    for nth, (used_B, counts) in enumerate(parts):
        started_s = time.perf_counter()
        micro = _micro(context, used_B, counts, epoch)
        speed.data_s += time.perf_counter() - started_s
        loss = _loss(context, micro, last=nth == len(parts) - 1)
        # strategies average gradients over ranks: times their number over the whole weight is the exact mean
        context.strategy.backward(loss * (context.world_size / total))
        sums_2 += torch.stack([loss.detach(), micro.weights_B.sum()])
    norm = context.strategy.update(rate_at(context, progress.step))
    if not np.isfinite(norm):
        raise TrainingDivergedError(
            f"the gradient is no number at step {progress.step}: lower optim.learning_rate "
            f"(now {context.optim.learning_rate})"
        )
    if context.average is not None:
        context.average.follow(progress.step)
    speed.count(len(batch_B))
    loss_sum, weight_sum = sums_2.tolist()
    return loss_sum, weight_sum


def microbatches(context: "TrainContext", batch_B: np.ndarray) -> Iterator[tuple[np.ndarray, bool]]:
    """Yield this rank's images of a global batch in parts, of which every rank has the same number.

    A part without images is an image of another one, which does not count.
    Returns:
        for each part its indices, and whether they count.
    """
    mine_B = rank_slice(batch_B, rank=context.rank, world_size=context.world_size)
    parts = context.config.accumulation(context.world_size)
    for nth in range(parts):
        part_B = rank_slice(mine_B, rank=nth, world_size=parts)
        yield (part_B, True) if len(part_B) else (batch_B[:1], False)


def _loss(context: "TrainContext", micro: Micro, *, last: bool) -> torch.Tensor:
    """Return the weighted sum of losses over the images of a microbatch."""
    losses_B = F.cross_entropy(
        context.strategy.logits(micro.x_BCHW, last=last),
        micro.targets_BK,
        reduction="none",
        label_smoothing=context.config.label_smoothing,
    )
    return (losses_B * micro.weights_B).sum()


def _micro(context: "TrainContext", used_B: np.ndarray, counts: bool, epoch: int) -> Micro:
    blend, data = context.blend(epoch), context.data
    x_BCHW = training_inputs(data, used_B, context.config, epoch, context.device)
    labels_B, partners_B = data.train.labels_N[used_B], blend.partners_N[used_B]
    own_B = blend.shares_N[used_B]
    if blend.blends:
        share_B = torch.from_numpy(own_B).float().to(context.device)[:, None, None, None]
        others_BCHW = training_inputs(data, partners_B, context.config, epoch, context.device)
        x_BCHW = share_B * x_BCHW + (1 - share_B) * others_BCHW
    weights_B = _weights(context, blend, used_B)
    rows_B = np.arange(len(used_B))
    targets_BK = np.zeros((len(used_B), len(data.classes)))
    targets_BK[rows_B, labels_B] = own_B * context.weights_K[labels_B]
    others_B = data.train.labels_N[partners_B]
    targets_BK[rows_B, others_B] += (1 - own_B) * context.weights_K[others_B]
    return Micro(
        x_BCHW=x_BCHW,
        targets_BK=torch.from_numpy(targets_BK / weights_B[:, None]).float().to(context.device),
        weights_B=torch.from_numpy(weights_B * counts).float().to(context.device),
    )


def _weights(context: "TrainContext", blend: Blend, indices_B: np.ndarray) -> np.ndarray:
    """Return the weight of each image: that of its class, blended as the image is."""
    labels_N, own_B = context.data.train.labels_N, blend.shares_N[indices_B]
    mine_B = context.weights_K[labels_N[indices_B]]
    other_B = context.weights_K[labels_N[blend.partners_N[indices_B]]]
    return own_B * mine_B + (1 - own_B) * other_B
