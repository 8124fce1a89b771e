"""Fine-tuning itself: epochs, updates, checkpoints; knows neither Ray nor MLflow nor S3.

Every rank runs it with the same arguments, inside a process group. At a given position all that happens is a pure
function of the configuration, the rows and the state, so a run that was interrupted ends with the same bits. With
adapters a checkpoint has the adapters, their optimizer and the position, and nothing of the base.
"""

import hashlib
import logging
import resource
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from litgpt.model import GPT

from train import checkpoint, llm_model, llm_pack, parallel
from train.checkpoint import WEIGHTS_NAME, Progress
from train.checkpoint_store import Mark
from train.fit import Checkpoints, LeaveError, Watch
from train.llm_config import LlmConfig
from train.llm_tokens import Encoder, Pair
from train.optimizer import KINDS, begin, set_rates
from train.sample_order import batches_per_epoch, epoch_order, global_batch, rank_slice
from train.schedule import learning_rate
from train.step import TrainingDivergedError

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class LlmSetup:
    """What stays the same over a run, on one rank."""

    config: LlmConfig
    rows: Sequence[llm_pack.Row]
    model: GPT
    optimizer: torch.optim.Optimizer
    device: torch.device
    about: Mapping[str, object]
    """What its checkpoints belong to, as JSON takes it."""

    @property
    def batches(self) -> int:
        return batches_per_epoch(len(self.rows), self.config.batch_size)

    @property
    def steps(self) -> int:
        return self.batches * self.config.epochs

    def state(self) -> dict[str, torch.Tensor]:
        """Every tensor that the rest of the run depends on, by name; filled in place when a run goes on."""
        found: dict[str, torch.Tensor] = {}
        for name, one in llm_model.learned(self.model).items():
            moments = begin(self.optimizer, one)
            found[f"model.{name}"] = one.detach()
            found |= {f"optimizer.{kind}.{name}": moments[kind] for kind in KINDS}
        return found

    def weights(self) -> dict[str, torch.Tensor]:
        """What was learned, float32, on the CPU."""
        return {
            name: one.detach().to("cpu", torch.float32, copy=True)
            for name, one in llm_model.learned(self.model).items()
        }


@dataclass(kw_only=True)
class Speed:
    """What one epoch took in this attempt, on this rank."""

    started_s: float = field(default_factory=time.perf_counter)
    cpu_s: float = field(default_factory=time.process_time)
    steps: int = 0
    tokens: int = 0
    """Of all ranks, without padding."""

    def row(self, device: torch.device) -> dict[str, float]:
        took_s = max(time.perf_counter() - self.started_s, 1e-9)
        steps = max(self.steps, 1)
        row = {
            "tokens_per_s": self.tokens / took_s,
            "step_s": took_s / steps,
            "step_cpu_s": (time.process_time() - self.cpu_s) / steps,
            "peak_memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        }
        if device.type == "cuda":
            row["peak_gpu_memory_mib"] = torch.cuda.max_memory_allocated(device) / 2**20
        return row


def prepare(
    config: LlmConfig, base: Path, pairs: Sequence[Pair], *, run: str, device: torch.device
) -> LlmSetup:
    """Tokens, rows, model and optimizer.

    Raises:
        LlmDataError, LlmModelError, Nf4Error: one line each.
    """
    samples = Encoder(base).samples(pairs, config.max_seq_length)
    model = llm_model.build(base, config, device)
    model.train()
    optim = config.optim
    optimizer = torch.optim.AdamW(
        list(llm_model.learned(model).values()),
        lr=optim.learning_rate,
        betas=(optim.beta1, optim.beta2),
        weight_decay=optim.weight_decay,
        fused=True,
    )
    return LlmSetup(
        config=config,
        rows=llm_pack.rows(samples, longest=config.max_seq_length, packing=config.packing),
        model=model,
        optimizer=optimizer,
        device=device,
        about={"architecture": llm_model.describe(base, config), "run": run},
    )


def fit(setup: LlmSetup, checkpoints: Checkpoints, watch: Watch | None = None) -> Progress:
    """Train from the newest checkpoint, or from the beginning, to the last epoch.

    Raises:
        CheckpointError: the newest checkpoint belongs to another run.
        TrainingDivergedError: the gradient became NaN or infinite.
        LeaveError: the machine is about to be taken away.
    """
    with checkpoints.newest() as folder:
        progress = Progress() if folder is None else checkpoint.load(folder, setup.state(), setup.about)
    while progress.position.epoch < setup.config.epochs:
        speed = Speed()
        _train_epoch(setup, progress, checkpoints, watch, speed)
        row = _close_epoch(setup, progress)
        if watch is not None:
            watch.epoch(row, speed.row(setup.device))
        _commit(setup, progress, checkpoints)
    checkpoints.flush()
    return progress


def _train_epoch(
    setup: LlmSetup, progress: Progress, checkpoints: Checkpoints, watch: Watch | None, speed: Speed
) -> None:
    config, epoch = setup.config, progress.position.epoch
    order_N = epoch_order([row.hash for row in setup.rows], seed=config.seed, epoch=epoch)
    while progress.position.epoch == epoch:
        batch_B = global_batch(order_N, batch=progress.position.batch, batch_size=config.batch_size)
        loss_sum, weight_sum = update(setup, progress.step, batch_B)
        speed.steps += 1
        speed.tokens += sum(setup.rows[nth].length for nth in batch_B)
        progress.loss_sum += loss_sum
        progress.weight_sum += weight_sum
        progress.step += 1
        progress.position = progress.position.advanced(setup.batches)
        if watch is not None:
            watch.step(progress, setup.steps, loss_sum / max(weight_sum, 1))
        _keep(setup, progress, checkpoints)


def update(setup: LlmSetup, step: int, batch_B: np.ndarray) -> tuple[float, float]:
    """One update on one global batch; this rank's sum of losses, and of learned tokens.

    The gradient is that of the mean over all learned tokens of the global batch, however they are shared out.
    Raises:
        TrainingDivergedError: the gradient is no number, on all ranks alike; nothing was changed.
    """
    config, rank, world_size = setup.config, dist.get_rank(), dist.get_world_size()
    torch.manual_seed(
        _seed(config.seed, step, rank)
    )  # dropout: there is no generator whose state could be lost
    total = sum(setup.rows[nth].learned for nth in batch_B)
    mine_B = rank_slice(batch_B, rank=rank, world_size=world_size)
    parts = config.parts(world_size)
    loss_sum, weight_sum = 0.0, 0
    for part in range(parts):
        chosen = [setup.rows[nth] for nth in rank_slice(mine_B, rank=part, world_size=parts)]
        if chosen:
            loss = llm_model.answer_loss(setup.model, llm_pack.batch(chosen).to(setup.device), config)
            (loss / total).backward()
            loss_sum += float(loss.detach())
            weight_sum += sum(row.learned for row in chosen)
    norm = _step(setup, learning_rate(step, setup.steps, config.optim))
    if not np.isfinite(norm):
        raise TrainingDivergedError(
            f"the gradient is no number at step {step}: lower learning_rate (now {config.learning_rate})"
        )
    return loss_sum, float(weight_sum)


@torch.no_grad()
def _step(setup: LlmSetup, rate: float) -> float:
    """Add up the ranks' gradients, in one collective; clip, step, forget them. Returns their norm."""
    parameters = list(llm_model.learned(setup.model).values())
    flat = torch.cat(
        [torch.zeros_like(one).flatten() if one.grad is None else one.grad.flatten() for one in parameters]
    )
    if dist.get_world_size() > 1:
        dist.all_reduce(flat)
    norm = float(torch.linalg.vector_norm(flat))
    if np.isfinite(norm):
        if setup.config.clip_norm and norm > setup.config.clip_norm:
            flat *= setup.config.clip_norm / norm
        for one, part in zip(parameters, flat.split([one.numel() for one in parameters]), strict=True):
            one.grad = part.view_as(one)
        set_rates(setup.optimizer, rate)
        setup.optimizer.step()
    setup.optimizer.zero_grad()
    return norm


def _keep(setup: LlmSetup, progress: Progress, checkpoints: Checkpoints) -> None:
    """Commit after a step where that is due, or where the machine goes; at the end of an epoch its close commits."""
    every, leaves = setup.config.checkpoint_every_steps, checkpoints.must_leave()
    if progress.position.batch and (leaves or (every and progress.step % every == 0)):
        _commit(setup, progress, checkpoints)
        if leaves:
            checkpoints.flush()
            raise LeaveError


def _close_epoch(setup: LlmSetup, progress: Progress) -> dict[str, float]:
    own_2 = torch.tensor([progress.loss_sum, progress.weight_sum], dtype=torch.float64, device=setup.device)
    loss_sum, weight_sum = parallel.summed(own_2).tolist()
    row = {
        "epoch": progress.position.epoch,
        "step": progress.step,
        "train_loss": loss_sum / max(weight_sum, 1),
        "learning_rate": learning_rate(progress.step - 1, setup.steps, setup.config.optim),
    }
    progress.loss_sum = progress.weight_sum = 0.0
    progress.history.append(row)
    return row


def _commit(setup: LlmSetup, progress: Progress, checkpoints: Checkpoints) -> None:
    """Copy the state and have the copy published; the last one has what was learned in a file of its own."""
    ended = progress.position.epoch == setup.config.epochs
    closes = progress.step > 0 and progress.position.batch == 0
    whole = {WEIGHTS_NAME: setup.weights()} if ended else None
    part = checkpoint.snapshot(setup.state(), progress, setup.about, whole=whole)
    mark = Mark(step=progress.step, epoch=progress.position.epoch if closes else None)
    write: Callable[[Path], None] = part.write
    checkpoints.commit(mark, write)


def _seed(*parts: int) -> int:
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=7).digest(), "big")
