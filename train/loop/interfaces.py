"""What the training loop works with: a model's setup, a store of checkpoints, callbacks; and how a run can end.

`train.loop.setup` and `train.llm.fit` implement `Setup`, `train.checkpoints.manager` implements `Checkpoints`.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from cluster.expected import ExpectedError
from train.checkpoints.state import Progress
from train.checkpoints.store import Mark
from train.config import OptimConfig, WorkersConfig
from train.inputs.sample_order import batches_per_epoch
from train.loop.lr_schedule import learning_rate


class TrainingDivergedError(ExpectedError):
    """The global gradient is NaN or infinite."""


class Preempted(Exception):
    """The machine is about to be taken away; the state is committed, and the run continues elsewhere."""


class StopRequested(Exception):
    """`TrainingCallbacks.should_continue` returned False; the state is committed."""


@dataclass(kw_only=True)
class Speed:
    """Time and work of one epoch in this attempt, on this rank."""

    started_s: float = field(default_factory=time.perf_counter)
    cpu_s: float = field(default_factory=time.process_time)
    data_s: float = 0.0
    """Time that updates waited for their data, seconds."""
    steps: int = 0
    samples: int = 0
    """Images or tokens of all ranks."""

    def count(self, samples: int) -> None:
        """Count one update on this many samples."""
        self.steps += 1
        self.samples += samples

    def row(self, unit: str) -> dict[str, float]:
        """Return samples a second as `{unit}_per_s`, and the mean of seconds a step as `step_s`."""
        took_s = max(time.perf_counter() - self.started_s, 1e-9)
        return {f"{unit}_per_s": self.samples / took_s, "step_s": took_s / max(self.steps, 1)}


class Setup(Protocol):
    """A model with its data and settings on one rank; all ranks call each method together."""

    @property
    def config(self) -> WorkersConfig:
        """The settings of the run."""

    @property
    def optim(self) -> OptimConfig:
        """The part of the settings that the learning rate follows from."""

    @property
    def about(self) -> Mapping[str, object]:
        """What a checkpoint must belong to, as JSON takes it."""

    @property
    def device(self) -> torch.device: ...

    @property
    def hashes(self) -> Sequence[str]:
        """Hash of each training sample; they determine the order."""

    @property
    def elastic(self) -> bool:
        """Whether a run can continue with another number of ranks."""

    @property
    def skips_diverged(self) -> bool:
        """Whether a run goes back once and skips the batches that diverged, instead of ending."""

    def state(self) -> dict[str, torch.Tensor]:
        """Return every tensor that the rest of the run depends on, by name; a resumed run fills them in place."""

    def adopt(self) -> None:
        """Compute with the state as it was filled."""

    def buffers(self) -> list[torch.Tensor]:
        """Return the running statistics that each rank has for itself until the end of an epoch."""

    def update(self, progress: Progress, batch_B: np.ndarray, speed: Speed) -> tuple[float, float]:
        """Apply one update on one global batch, and count it in `speed`.

        Args:
            batch_B: indices into `hashes`.
        Returns:
            this rank's weighted sum of losses, and its sum of weights.
        Raises:
            TrainingDivergedError: on all ranks alike.
        """

    def validate(self) -> dict[str, float]:
        """Return the metrics of the validation split, the same on all ranks; empty where there is none."""

    def speed_row(self, speed: Speed) -> dict[str, float]:
        """Return the metrics of an epoch that no rerun repeats."""

    def final_weights(self) -> Iterator[tuple[str, dict[str, torch.Tensor]]]:
        """Yield the unsharded weights by file name, complete on rank 0."""

    def close(self) -> None:
        """Release open files; the data are not used afterwards."""


class Checkpoints(Protocol):
    """Storage of a run's checkpoints; all ranks call each method together."""

    def newest(self) -> AbstractContextManager[Path | None]:
        """Provide the last whole checkpoint as a local folder with the files of all ranks; None if there is none."""

    def commit(self, mark: Mark, write: Callable[[Path], None]) -> None:
        """Publish a checkpoint while training continues.

        Args:
            write: fills a local folder with this rank's files; called later on another thread, so it must not read
                what training changes.
        """

    def flush(self) -> None:
        """Wait until the last committed checkpoint is published."""

    def must_leave(self) -> bool:
        """Return whether the machine is about to be taken away, the same on all ranks; called after each step."""


@dataclass(frozen=True, kw_only=True)
class TrainingCallbacks:
    """Functions that the loop calls on each rank."""

    step: Callable[[Progress, int, float], None] = lambda progress, steps, loss: None
    """Called after each update with the progress, the number of steps of the run and this rank's mean loss."""
    epoch: Callable[[dict[str, float], dict[str, float]], None] = lambda row, speed: None
    """Called after each epoch with its metrics, and with those that no rerun repeats."""
    should_continue: Callable[[list[dict[str, float]]], bool] | None = None
    """Called by all ranks with the rows of all epochs so far, once each epoch is committed and when a run resumes;
    False ends the run there."""


NO_CALLBACKS = TrainingCallbacks()


def count_batches(setup: Setup) -> int:
    """Return the number of global batches of an epoch."""
    return batches_per_epoch(len(setup.hashes), setup.config.batch_size)


def count_steps(setup: Setup) -> int:
    """Return the number of steps of the whole run."""
    return count_batches(setup) * setup.config.epochs


def rate_at(setup: Setup, step: int) -> float:
    """Return the learning rate of a step, counted from 0."""
    return learning_rate(step, count_steps(setup), setup.optim)
