"""The training loop itself: epochs, steps, validation, checkpoints; knows neither Ray nor MLflow nor S3.

Every rank runs it with the same arguments. At a given position all that happens is a pure function of the
configuration, the data and the state, so a run that was interrupted ends with the same bits.
"""

import hashlib
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F

from cluster.expected import ExpectedError
from train import checkpoint, parallel
from train.checkpoint import Progress
from train.config import TrainConfig
from train.dataset import TrainingData, class_weights, inputs, training_inputs
from train.model import build_vit, decay_groups
from train.sample_order import batches_per_epoch, epoch_order, global_batch, rank_slice
from train.schedule import learning_rate

VALIDATION_BATCH = 64  # images a rank


class TrainingDivergedError(ExpectedError):
    """The loss is no number any more."""


class Checkpoints(Protocol):
    """Where checkpoints go to and come from; all ranks call each method together."""

    def newest(self) -> AbstractContextManager[Path | None]:
        """The last committed checkpoint as a local folder, None when there is none."""

    def commit(self, name: str, metrics: dict[str, float], write: Callable[[Path], None]) -> None:
        """Have `write` fill a local folder with this rank's part, and publish it under `name`."""


@dataclass(frozen=True, kw_only=True)
class Watch:
    """Who is told how it goes; on rank 0 only."""

    step: Callable[[Progress, int, float], None]
    """Called after each update with the progress, the total of steps and this rank's loss."""
    epoch: Callable[[dict[str, float], dict[str, float]], None]
    """Called after each epoch with its metrics, and with its speed, which no rerun repeats."""


@dataclass(kw_only=True)
class Speed:
    """What one epoch took in this attempt, seconds; of this rank."""

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
class Setup:
    """What stays the same over a run, on one rank."""

    config: TrainConfig
    data: TrainingData
    run: str
    """Identity of the run, in its checkpoints."""
    model: torch.nn.Module
    optimizer: torch.optim.Optimizer
    weights_K: np.ndarray
    """Weight of an image by class."""
    device: torch.device

    @property
    def rank(self) -> int:
        return dist.get_rank()

    @property
    def world_size(self) -> int:
        return dist.get_world_size()

    @property
    def batches(self) -> int:
        return batches_per_epoch(len(self.data.train), self.config.batch_size)

    @property
    def steps(self) -> int:
        return self.batches * self.config.epochs


def prepare(config: TrainConfig, data: TrainingData, *, run: str, device: torch.device) -> Setup:
    """Build the sharded model and its optimizer; the first weights depend on the seed alone."""
    torch.manual_seed(config.seed)
    model = build_vit(config.model, classes=len(data.classes), side=data.pixels.side).to(device)
    parallel.shard(model, config)
    optim = config.optim
    optimizer = torch.optim.AdamW(
        decay_groups(model, optim.weight_decay),
        lr=optim.learning_rate,
        betas=(optim.beta1, optim.beta2),
        fused=True,
    )
    weights_K = class_weights(data.train.labels_N, len(data.classes), config.class_balance)
    return Setup(
        config=config,
        data=data,
        run=run,
        model=model,
        optimizer=optimizer,
        weights_K=weights_K,
        device=device,
    )


def fit(setup: Setup, checkpoints: Checkpoints, watch: Watch | None = None) -> Progress:
    """Train from the newest checkpoint, or from the beginning, to the last epoch.

    Raises:
        CheckpointError: the newest checkpoint belongs to another run.
        TrainingDivergedError: the loss became NaN or infinite.
    """
    progress = Progress()
    with checkpoints.newest() as directory:
        if directory is not None:
            progress = checkpoint.load(directory, setup.model, setup.optimizer, setup.run)
    while progress.position.epoch < setup.config.epochs:
        speed = Speed()
        _train_epoch(setup, progress, checkpoints, watch, speed)
        row = _close_epoch(setup, progress)
        if watch is not None:
            watch.epoch(row, speed.row())
        _commit(setup, progress, checkpoints, f"epoch-{progress.position.epoch:04d}", row)
    return progress


def _train_epoch(
    setup: Setup, progress: Progress, checkpoints: Checkpoints, watch: Watch | None, speed: Speed
) -> None:
    """The rest of the epoch that the position stands in; a checkpoint where one is due on the way."""
    config, epoch = setup.config, progress.position.epoch
    order_N = epoch_order(setup.data.train.hashes, seed=config.seed, epoch=epoch)
    sums_2 = torch.zeros(2, dtype=torch.float64)
    setup.model.train()
    while progress.position.epoch == epoch:
        batch_B = global_batch(order_N, batch=progress.position.batch, batch_size=config.batch_size)
        loss_sum, weight_sum = _step(setup, progress, batch_B, speed)
        sums_2 += torch.tensor([loss_sum, weight_sum], dtype=torch.float64)
        progress.step += 1
        progress.position = progress.position.advanced(setup.batches)
        if watch is not None:
            watch.step(progress, setup.steps, loss_sum / max(weight_sum, 1e-9))
        every = config.checkpoint_every_steps
        if every and progress.step % every == 0 and progress.position.epoch == epoch:
            _agree(setup, progress, sums_2)
            _commit(setup, progress, checkpoints, f"step-{progress.step:08d}", {"step": progress.step})
    _agree(setup, progress, sums_2)


def _step(setup: Setup, progress: Progress, batch_B: np.ndarray, speed: Speed) -> tuple[float, float]:
    """One update on one global batch; returns this rank's weighted loss and weight, summed over its images."""
    config = setup.config
    started_s = time.perf_counter()
    x_BCHW, labels_B, weights_B = _rank_batch(setup, batch_B, progress.position.epoch)
    speed.data_s += time.perf_counter() - started_s
    # dropout: a function of seed, step and rank, so that there is no generator whose state could be lost
    torch.manual_seed(_seed(config.seed, progress.step, setup.rank))
    for group in setup.optimizer.param_groups:
        group["lr"] = learning_rate(progress.step, setup.steps, config.optim)
    losses_B = F.cross_entropy(
        setup.model(x_BCHW).float(), labels_B, reduction="none", label_smoothing=config.label_smoothing
    )
    loss = (losses_B * weights_B).sum()
    # FSDP averages over ranks: times their number over the weight of the whole global batch is the exact mean
    total = float(setup.weights_K[setup.data.train.labels_N[batch_B]].sum())
    (loss * (setup.world_size / total)).backward()
    norm = parallel.clip_gradients(setup.model, config.optim.clip_norm)
    if not np.isfinite(norm):  # the same on all ranks, so that all stop together
        raise TrainingDivergedError(
            f"the gradient is no number at step {progress.step}: lower optim.learning_rate "
            f"(now {config.optim.learning_rate})"
        )
    setup.optimizer.step()
    setup.optimizer.zero_grad()
    speed.steps += 1
    speed.images += len(batch_B)
    return float(loss.detach()), float(weights_B.sum())


def _rank_batch(
    setup: Setup, batch_B: np.ndarray, epoch: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """This rank's images, labels and weights; one image of weight 0 where its slice is empty."""
    mine_B = rank_slice(batch_B, rank=setup.rank, world_size=setup.world_size)
    used_B = mine_B if len(mine_B) else batch_B[:1]
    labels_B = setup.data.train.labels_N[used_B]
    weights_B = torch.from_numpy(setup.weights_K[labels_B]).float() * float(len(mine_B) > 0)
    x_BCHW = training_inputs(setup.data, used_B, setup.config, epoch)
    return (
        x_BCHW.to(setup.device),
        torch.from_numpy(labels_B).to(setup.device),
        weights_B.to(setup.device),
    )


def _agree(setup: Setup, progress: Progress, sums_2: torch.Tensor) -> None:
    """Bring what each rank has for itself together: its running sums, which begin again, and buffers."""
    parallel.average_buffers(setup.model)
    loss_sum, weight_sum = parallel.summed(sums_2.to(setup.device)).tolist()
    progress.loss_sum += loss_sum
    progress.weight_sum += weight_sum
    sums_2.zero_()


def _close_epoch(setup: Setup, progress: Progress) -> dict[str, float]:
    """Validate, and append the epoch's row to the history."""
    row = {
        "epoch": progress.position.epoch,
        "step": progress.step,
        "train_loss": progress.loss_sum / progress.weight_sum,
        "learning_rate": learning_rate(progress.step - 1, setup.steps, setup.config.optim),
        **validate(setup),
    }
    progress.loss_sum = progress.weight_sum = 0.0
    progress.history.append(row)
    return row


@torch.no_grad()
def validate(setup: Setup) -> dict[str, float]:
    """Loss, accuracy and balanced accuracy on the validation split, each image on one rank.

    (`no_grad`, as `inference_mode` and the views that FSDP keeps of gathered parameters do not go together.)
    """
    setup.model.eval()
    images, classes = setup.data.validation, len(setup.data.classes)
    confusion_KK = torch.zeros(classes, classes, dtype=torch.float64, device=setup.device)
    loss_1 = torch.zeros(1, dtype=torch.float64, device=setup.device)
    together = VALIDATION_BATCH * setup.world_size
    for start in range(0, len(images), together):
        batch_B = np.arange(start, min(start + together, len(images)))
        mine_B = rank_slice(batch_B, rank=setup.rank, world_size=setup.world_size)
        used_B = mine_B if len(mine_B) else batch_B[:1]  # every rank takes part in gathering the weights
        logits_BK = setup.model(inputs(images, used_B, setup.data.pixels).to(setup.device)).float()
        if not len(mine_B):
            continue
        labels_B = torch.from_numpy(images.labels_N[mine_B]).to(setup.device)
        loss_1 += F.cross_entropy(logits_BK, labels_B, reduction="sum")
        cells_B = labels_B * classes + logits_BK.argmax(dim=1)
        confusion_KK += torch.bincount(cells_B, minlength=classes**2).view(classes, classes)
    parallel.reshard(setup.model)
    confusion_KK, loss_1 = parallel.summed(confusion_KK), parallel.summed(loss_1)
    counts_K, right_K = confusion_KK.sum(dim=1), confusion_KK.diagonal()
    present_K = counts_K > 0
    return {
        "validation_loss": float(loss_1) / len(images),
        "validation_accuracy": float(right_K.sum() / counts_K.sum()),
        "validation_balanced_accuracy": float((right_K[present_K] / counts_K[present_K]).mean()),
    }


def _commit(
    setup: Setup, progress: Progress, checkpoints: Checkpoints, name: str, metrics: dict[str, float]
) -> None:
    def write(directory: Path) -> None:
        checkpoint.save(directory, setup.model, setup.optimizer, progress, setup.run)
        if progress.position.epoch == setup.config.epochs:
            checkpoint.save_weights(directory, setup.model)

    checkpoints.commit(name, metrics, write)


def _seed(*parts: int) -> int:
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=7).digest(), "big")
