"""The language model on one rank, as the training loop needs it: packed rows, model, optimizer, one update.

With adapters a checkpoint has the adapters, their optimizer and the position, and nothing of the base. Knows neither
Ray, MLflow nor S3.
"""

import functools
import resource
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from litgpt.model import GPT

from train.checkpoints.state import WEIGHTS_NAME, Progress
from train.config import OptimConfig
from train.inputs.sample_order import rank_slice
from train.llm import model as llm_model
from train.llm import packing
from train.llm.config import LlmConfig
from train.llm.tokenise import Encoder, Pair
from train.loop.interfaces import Speed, TrainingDivergedError, rate_at
from train.strategies.optimizer import KINDS, begin, set_rates


@dataclass(frozen=True, kw_only=True)
class LlmContext:
    """Implements `train.loop.interfaces.Setup`; every rank holds the whole model."""

    config: LlmConfig
    rows: Sequence[packing.Row]
    model: GPT
    optimizer: torch.optim.Optimizer
    device: torch.device
    about: Mapping[str, object]
    elastic: bool = True
    skips_diverged: bool = False

    @property
    def optim(self) -> OptimConfig:
        return self.config.optim

    @functools.cached_property
    def hashes(self) -> Sequence[str]:
        return [row.hash for row in self.rows]

    def state(self) -> dict[str, torch.Tensor]:
        tensors: dict[str, torch.Tensor] = {}
        for name, parameter in llm_model.learned(self.model).items():
            moments = begin(self.optimizer, parameter)
            tensors[f"model.{name}"] = parameter.detach()
            tensors |= {f"optimizer.{kind}.{name}": moments[kind] for kind in KINDS}
        return tensors

    def adopt(self) -> None:
        """Do nothing: the model computes with the parameters themselves."""

    def buffers(self) -> list[torch.Tensor]:
        return []

    def weights(self) -> dict[str, torch.Tensor]:
        """Return the learned parameters by name, float32, on the CPU."""
        return {
            name: parameter.detach().to("cpu", torch.float32, copy=True)
            for name, parameter in llm_model.learned(self.model).items()
        }

    def final_weights(self) -> Iterator[tuple[str, dict[str, torch.Tensor]]]:
        yield WEIGHTS_NAME, self.weights()

    def update(self, progress: Progress, batch_B: np.ndarray, speed: Speed) -> tuple[float, float]:
        """Apply one update, whose gradient is that of the mean over all learned tokens of the global batch.

        Returns:
            the sums of losses and of learned tokens of this rank.
        Raises:
            TrainingDivergedError: the gradient is NaN or infinite, on all ranks alike; nothing was changed.
        """
        rank, world_size = dist.get_rank(), dist.get_world_size()
        total = sum(self.rows[nth].learned for nth in batch_B)
        mine_B = rank_slice(batch_B, rank=rank, world_size=world_size)
        parts = self.config.accumulation(world_size)
        loss_sum, weight_sum = 0.0, 0
        for part in range(parts):
            rows = [self.rows[nth] for nth in rank_slice(mine_B, rank=part, world_size=parts)]
            if rows:
                loss = llm_model.answer_loss(self.model, packing.batch(rows).to(self.device), self.config)
                (loss / total).backward()
                loss_sum += float(loss.detach())
                weight_sum += sum(row.learned for row in rows)
        norm = self._step(rate_at(self, progress.step))
        if not np.isfinite(norm):
            raise TrainingDivergedError(
                f"the gradient is no number at step {progress.step}: lower learning_rate "
                f"(now {self.config.learning_rate})"
            )
        speed.count(sum(self.rows[nth].length for nth in batch_B))
        return loss_sum, float(weight_sum)

    @torch.no_grad()
    def _step(self, learning_rate: float) -> float:
        """Sum the ranks' gradients in one collective, clip, step, and forget them.

        Returns:
            the global gradient norm before clipping; where it is NaN or infinite there was no step.
        """
        parameters = list(llm_model.learned(self.model).values())
        flat = torch.cat(
            [
                torch.zeros_like(parameter).flatten() if parameter.grad is None else parameter.grad.flatten()
                for parameter in parameters
            ]
        )
        if dist.get_world_size() > 1:
            dist.all_reduce(flat)
        norm = float(torch.linalg.vector_norm(flat))
        if np.isfinite(norm):
            if self.config.clip_norm and norm > self.config.clip_norm:
                flat *= self.config.clip_norm / norm
            sizes = [parameter.numel() for parameter in parameters]
            for parameter, gradient in zip(parameters, flat.split(sizes), strict=True):
                parameter.grad = gradient.view_as(parameter)
            set_rates(self.optimizer, learning_rate)
            self.optimizer.step()
        self.optimizer.zero_grad()
        return norm

    def validate(self) -> dict[str, float]:
        """Return nothing: answers are judged after training, by the checker of serving."""
        return {}

    def speed_row(self, speed: Speed) -> dict[str, float]:
        """Return tokens a second without padding, time a step, and peak memory in MiB."""
        row = {
            **speed.row("tokens"),
            "step_cpu_s": (time.process_time() - speed.cpu_s) / max(speed.steps, 1),
            "peak_memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        }
        if self.device.type == "cuda":
            row["peak_gpu_memory_mib"] = torch.cuda.max_memory_allocated(self.device) / 2**20
        return row

    def close(self) -> None:
        """Do nothing: no file is open."""


def prepare(
    config: LlmConfig, base: Path, pairs: Sequence[Pair], *, run: str, device: torch.device
) -> LlmContext:
    """Make tokens, rows, model and optimizer.

    Args:
        base: folder of the base checkpoint.
        run: identity of the run, in its checkpoints.
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
    return LlmContext(
        config=config,
        rows=packing.rows(samples, longest=config.max_seq_length, packing=config.packing),
        model=model,
        optimizer=optimizer,
        device=device,
        about={"architecture": llm_model.describe(base, config), "run": run},
    )
