"""The training loop itself: epochs, steps, validation, checkpoints; knows neither Ray nor MLflow nor S3.

Every rank runs it with the same arguments. At a given position all that happens is a pure function of the
configuration, the data and the state, so a run that was interrupted ends with the same bits.
"""

import hashlib
import json
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, cast

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.tensor import DTensor

from cluster.expected import ExpectedError
from train import checkpoint, parallel
from train.checkpoint import WEIGHTS_NAME, Progress
from train.checkpoint_store import Mark
from train.config import TrainConfig
from train.dataset import TrainingData, class_weights, inputs, training_inputs
from train.model import build_vit, decay_groups
from train.sample_order import batches_per_epoch, epoch_order, global_batch, rank_slice
from train.schedule import learning_rate

VALIDATION_BATCH = 64  # images a rank
SKIPPED_BATCHES = 4
"""How many, from the one at which the loss stopped being a number; at most to the end of its epoch."""

logger = logging.getLogger(__name__)


class TrainingDivergedError(ExpectedError):
    """The loss is no number any more."""


class LeaveError(Exception):
    """The machine is about to be taken away; everything so far is committed, and the run goes on elsewhere."""


class Checkpoints(Protocol):
    """Where checkpoints go to and come from; all ranks call each method together."""

    def newest(self) -> AbstractContextManager[Path | None]:
        """The last whole checkpoint as a local folder with the files of all ranks, None when there is none."""

    def commit(self, mark: Mark, write: Callable[[Path], None]) -> None:
        """Publish a checkpoint while training goes on.

        Args:
            write: fills a local folder with this rank's files; called later, on another thread, so it may touch
                nothing that training changes.
        """

    def flush(self) -> None:
        """Wait until the newest checkpoint that was given to `commit` is there."""

    def must_leave(self) -> bool:
        """Whether the machine is about to be taken away; the same on all ranks. Asked after each step."""


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

    @property
    def about(self) -> dict[str, object]:
        """What its checkpoints belong to, as JSON takes it."""
        model = self.config.model
        return {
            "architecture": f"{model.name} {json.dumps(model.kwargs, sort_keys=True)}",
            "classes": list(self.data.classes),
            "run": self.run,
        }

    def state(self) -> dict[str, torch.Tensor]:
        """Every tensor that the rest of the run depends on, by name; filled in place when a run goes on."""
        found = {f"model.{name}": one for name, one in self.model.state_dict().items()}
        for name, parameter in self.model.named_parameters():
            for kind, one in _moments(self.optimizer, parameter).items():
                found[f"optimizer.{kind}.{name}"] = one
        return found

    def buffers(self) -> list[torch.Tensor]:
        """The running statistics that each rank has for itself between two agreements."""
        return list(self.model.buffers())

    def final_weights(self) -> Iterator[tuple[str, dict[str, torch.Tensor]]]:
        """Unsharded weights by file name; all ranks call it, and rank 0 gets them."""
        options = StateDictOptions(full_state_dict=True, cpu_offload=True)
        weights = cast(dict[str, torch.Tensor], get_model_state_dict(self.model, options=options))
        yield (
            WEIGHTS_NAME,
            {
                name: (one.float() if one.is_floating_point() else one).contiguous()
                for name, one in weights.items()
            },
        )


def _moments(optimizer: torch.optim.Optimizer, parameter: torch.Tensor) -> dict[str, torch.Tensor]:
    """AdamW's state of a parameter, begun as its first step would."""
    state: dict[str, torch.Tensor] = optimizer.state[parameter]
    if not state:
        state["step"] = torch.zeros((), dtype=torch.float32, device=parameter.device)
        for kind in ("exp_avg", "exp_avg_sq"):
            state[kind] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
    return state


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
        TrainingDivergedError: the loss became NaN or infinite, and did so again after its batches were skipped.
        LeaveError: the machine is about to be taken away.
    """
    progress = _newest(setup, checkpoints)
    if progress is None:
        progress = Progress()
        _commit(setup, progress, checkpoints)  # what a loss that is no number goes back to
    while progress.position.epoch < setup.config.epochs:
        speed = Speed()
        try:
            _train_epoch(setup, progress, checkpoints, watch, speed)
        except TrainingDivergedError as error:
            progress = _go_back(setup, progress, checkpoints, error)
            continue
        row = _close_epoch(setup, progress)
        if watch is not None:
            watch.epoch(row, speed.row())
        _commit(setup, progress, checkpoints)
    checkpoints.flush()
    return progress


def _newest(setup: Setup, checkpoints: Checkpoints) -> Progress | None:
    """Bring the model to the newest checkpoint; None where there is none."""
    with checkpoints.newest() as folder:
        return None if folder is None else checkpoint.load(folder, setup.state(), setup.about)


def _train_epoch(
    setup: Setup, progress: Progress, checkpoints: Checkpoints, watch: Watch | None, speed: Speed
) -> None:
    """The rest of the epoch that the position stands in; a checkpoint where one is due on the way."""
    config, epoch = setup.config, progress.position.epoch
    order_N = epoch_order(setup.data.train.hashes, seed=config.seed, epoch=epoch)
    setup.model.train()
    while progress.position.epoch == epoch:
        batch_B = global_batch(order_N, batch=progress.position.batch, batch_size=config.batch_size)
        skipped = progress.step in progress.skipped
        loss_sum, weight_sum = (0.0, 0.0) if skipped else _step(setup, progress, batch_B, speed)
        progress.loss_sum += loss_sum
        progress.weight_sum += weight_sum
        progress.step += 1
        progress.position = progress.position.advanced(setup.batches)
        if watch is not None and not skipped:
            watch.step(progress, setup.steps, loss_sum / max(weight_sum, 1e-9))
        _keep(setup, progress, checkpoints)


def _keep(setup: Setup, progress: Progress, checkpoints: Checkpoints) -> None:
    """Commit after a step where that is due, or where the machine goes; at the end of an epoch its close commits."""
    every, leaves = setup.config.checkpoint_every_steps, checkpoints.must_leave()
    if progress.position.batch and (leaves or (every and progress.step % every == 0)):
        _commit(setup, progress, checkpoints)
        if leaves:
            checkpoints.flush()
            raise LeaveError


def _go_back(
    setup: Setup, progress: Progress, checkpoints: Checkpoints, error: TrainingDivergedError
) -> Progress:
    """Return to the last good state, from which the batches that the loss broke at are passed over.

    They begin at the step that broke, so what follows does not depend on which checkpoint it was.
    Raises:
        TrainingDivergedError: it happened before in this run.
    """
    if progress.skipped:
        raise TrainingDivergedError(
            f"{error}; steps {progress.skipped[0]} to {progress.skipped[-1]} were skipped for the same reason before"
        ) from error
    rest = setup.batches - progress.position.batch
    skipped = [progress.step + nth for nth in range(min(SKIPPED_BATCHES, rest))]
    setup.optimizer.zero_grad()
    checkpoints.flush()
    restored = _newest(setup, checkpoints)
    assert restored is not None  # the first one is committed before the first step
    restored.skipped = skipped
    _commit(setup, restored, checkpoints)
    logger.warning("%s; back to step %d, skipping %d batches once", error, restored.step, len(skipped))
    return restored


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


def _close_epoch(setup: Setup, progress: Progress) -> dict[str, float]:
    """Bring together what each rank has for itself, validate, and append the epoch's row to the history."""
    parallel.average_buffers(setup.model)
    own_2 = torch.tensor([progress.loss_sum, progress.weight_sum], dtype=torch.float64, device=setup.device)
    loss_sum, weight_sum = parallel.summed(own_2).tolist()
    row = {
        "epoch": progress.position.epoch,
        "step": progress.step,
        "train_loss": loss_sum / max(weight_sum, 1e-9),
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


def _commit(setup: Setup, progress: Progress, checkpoints: Checkpoints) -> None:
    """Copy the state and have the copy published."""
    state, ended = setup.state(), progress.position.epoch == setup.config.epochs
    own = {one.data_ptr() for one in setup.buffers() if one.numel()}
    part = checkpoint.snapshot(
        state,
        progress,
        setup.about,
        own={name for name, one in state.items() if not isinstance(one, DTensor) and one.data_ptr() in own},
        whole=dict(setup.final_weights()) if ended else None,
    )
    closes = progress.step > 0 and progress.position.batch == 0
    mark = Mark(
        step=progress.step,
        epoch=progress.position.epoch if closes else None,
        rollbacks=int(bool(progress.skipped)),
    )
    checkpoints.commit(mark, part.write)


def _seed(*parts: int) -> int:
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=7).digest(), "big")
