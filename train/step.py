"""One update on one global batch: microbatches, the exact weighted mean, mixup, and the average of the weights."""

import hashlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F

from cluster.expected import ExpectedError
from train.checkpoint import Progress
from train.dataset import training_inputs
from train.mixup import Blend
from train.sample_order import rank_slice
from train.schedule import learning_rate
from train.setup import Setup


class TrainingDivergedError(ExpectedError):
    """The loss is no longer finite."""


@dataclass(kw_only=True)
class Speed:
    """Durations of one epoch in this attempt, seconds; of this rank."""

    started_s: float = field(default_factory=time.perf_counter)
    data_s: float = 0.0
    steps: int = 0
    images: int = 0

    def row(self) -> dict[str, float]:
        took_s = max(time.perf_counter() - self.started_s, 1e-9)
        steps = max(self.steps, 1)
        return {
            "images_per_s": self.images / took_s,
            "step_s": took_s / steps,
            "data_wait_s": self.data_s / steps,
        }


@dataclass(frozen=True, kw_only=True)
class Micro:
    """The inputs of one forward pass."""

    x_BCHW: torch.Tensor
    targets_BK: torch.Tensor
    """Probabilities of the classes: one of them, or two where images are blended."""
    weights_B: torch.Tensor
    """0 for an image that only lets a rank without images take part."""


def update(setup: Setup, progress: Progress, batch_B: np.ndarray, speed: Speed) -> tuple[float, float]:
    """Make one update on one global batch; return this rank's weighted loss and weight, summed over its images.

    Raises:
        TrainingDivergedError: the gradient is no number, on all ranks alike.
    """
    config, epoch = setup.config, progress.position.epoch
    # dropout is a function of seed, step and rank: no generator state to save
    torch.manual_seed(_seed(config.seed, progress.step, setup.rank))
    total = float(_weights(setup, setup.blend(epoch), batch_B).sum())
    parts = list(microbatches(setup, batch_B))
    sums_2 = torch.zeros(2, dtype=torch.float64, device=setup.device)
    for nth, (used_B, counts) in enumerate(parts):
        started_s = time.perf_counter()
        micro = _micro(setup, used_B, counts, epoch)
        speed.data_s += time.perf_counter() - started_s
        loss = _loss(setup, micro, last=nth == len(parts) - 1)
        # gradients are averaged over ranks: times their number over the whole weight is the exact mean
        setup.strategy.backward(loss * (setup.world_size / total))
        sums_2 += torch.stack([loss.detach(), micro.weights_B.sum()])
    norm = setup.strategy.update(learning_rate(progress.step, setup.steps, config.optim))
    if not np.isfinite(norm):
        raise TrainingDivergedError(
            f"the gradient is no number at step {progress.step}: lower optim.learning_rate "
            f"(now {config.optim.learning_rate})"
        )
    if setup.average is not None:
        setup.average.follow(progress.step)
    speed.steps += 1
    speed.images += len(batch_B)
    loss_sum, weight_sum = sums_2.tolist()
    return loss_sum, weight_sum


def microbatches(setup: Setup, batch_B: np.ndarray) -> Iterator[tuple[np.ndarray, bool]]:
    """Cut this rank's images of a global batch into as many parts as every rank has, and say whether each counts.

    Where there are not enough images for a part, it is an image of another one that does not count.
    """
    mine_B = rank_slice(batch_B, rank=setup.rank, world_size=setup.world_size)
    parts = setup.config.accumulation(setup.world_size)
    for nth in range(parts):
        part_B = rank_slice(mine_B, rank=nth, world_size=parts)
        yield (part_B, True) if len(part_B) else (batch_B[:1], False)


def _loss(setup: Setup, micro: Micro, *, last: bool) -> torch.Tensor:
    """Sum the weighted losses over the images of a microbatch."""
    losses_B = F.cross_entropy(
        setup.strategy.logits(micro.x_BCHW, last=last),
        micro.targets_BK,
        reduction="none",
        label_smoothing=setup.config.label_smoothing,
    )
    return (losses_B * micro.weights_B).sum()


def _micro(setup: Setup, used_B: np.ndarray, counts: bool, epoch: int) -> Micro:
    blend, data = setup.blend(epoch), setup.data
    x_BCHW = training_inputs(data, used_B, setup.config, epoch, setup.device)
    labels_B, partners_B = data.train.labels_N[used_B], blend.partners_N[used_B]
    own_B = blend.shares_N[used_B]
    if blend.blends:
        share_B = torch.from_numpy(own_B).float().to(setup.device)[:, None, None, None]
        others_BCHW = training_inputs(data, partners_B, setup.config, epoch, setup.device)
        x_BCHW = share_B * x_BCHW + (1 - share_B) * others_BCHW
    weights_B = _weights(setup, blend, used_B)
    rows_B = np.arange(len(used_B))
    targets_BK = np.zeros((len(used_B), len(data.classes)))
    targets_BK[rows_B, labels_B] = own_B * setup.weights_K[labels_B]
    others_B = data.train.labels_N[partners_B]
    targets_BK[rows_B, others_B] += (1 - own_B) * setup.weights_K[others_B]
    return Micro(
        x_BCHW=x_BCHW,
        targets_BK=torch.from_numpy(targets_BK / weights_B[:, None]).float().to(setup.device),
        weights_B=torch.from_numpy(weights_B * counts).float().to(setup.device),
    )


def _weights(setup: Setup, blend: Blend, indices_B: np.ndarray) -> np.ndarray:
    """Return each image's weight: by its class, blended as the image is."""
    labels_N, own_B = setup.data.train.labels_N, blend.shares_N[indices_B]
    mine_B = setup.weights_K[labels_N[indices_B]]
    other_B = setup.weights_K[labels_N[blend.partners_N[indices_B]]]
    weights_B: np.ndarray = own_B * mine_B + (1 - own_B) * other_B
    return weights_B


def _seed(*parts: int) -> int:
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=7).digest(), "big")
