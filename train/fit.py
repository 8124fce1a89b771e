"""The training loop itself: epochs, steps, validation, checkpoints; knows neither Ray nor MLflow nor S3.

Every rank runs it with the same arguments. At a given position all that happens is a pure function of the
configuration, the data and the state, so a run that was interrupted ends with the same bits.
"""

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch.distributed.tensor import DTensor

from train import checkpoint, parallel
from train.checkpoint import Progress
from train.checkpoint_store import Mark
from train.sample_order import epoch_order, global_batch
from train.schedule import learning_rate
from train.setup import Setup
from train.step import Speed, TrainingDivergedError, update
from train.validate import validate

SKIPPED_BATCHES = 4
"""How many, from the one at which the loss stopped being a number; at most to the end of its epoch."""

logger = logging.getLogger(__name__)


class LeaveError(Exception):
    """The machine is about to be taken away; everything so far is committed, and the run goes on elsewhere."""


class HaltError(Exception):
    """Whoever watches wants the run to end here for now; everything so far is committed."""


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
    """Who is told how it goes, on each rank."""

    step: Callable[[Progress, int, float], None]
    """Called after each update with the progress, the total of steps and this rank's loss."""
    epoch: Callable[[dict[str, float], dict[str, float]], None]
    """Called after each epoch with its metrics, and with its speed, which no rerun repeats."""
    goes_on: Callable[[list[dict[str, float]]], bool] | None = None
    """Asked by all ranks together, with the rows of all epochs so far, once the epoch is committed, and first when a
    run goes on; False ends it there."""


def fit(setup: Setup, checkpoints: Checkpoints, watch: Watch | None = None) -> Progress:
    """Train from the newest checkpoint, or from the beginning, to the last epoch.

    Raises:
        CheckpointError: the newest checkpoint belongs to another run.
        TrainingDivergedError: the loss became NaN or infinite, and did so again after its batches were skipped.
        LeaveError: the machine is about to be taken away.
        HaltError: `watch.goes_on` said no.
    """
    progress = _newest(setup, checkpoints)
    if progress is None:
        progress = Progress()
        _commit(setup, progress, checkpoints)  # what a loss that is no number goes back to
    elif progress.history:
        _ask(setup, progress, checkpoints, watch)
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
        _ask(setup, progress, checkpoints, watch)
    checkpoints.flush()
    return progress


def _ask(setup: Setup, progress: Progress, checkpoints: Checkpoints, watch: Watch | None) -> None:
    """Ask whether the run goes on, with everything so far in the store; after the last epoch it is only told."""
    if watch is not None and watch.goes_on is not None:
        checkpoints.flush()
        goes_on = watch.goes_on(progress.history)
        if not goes_on and progress.position.epoch < setup.config.epochs:
            raise HaltError


def _newest(setup: Setup, checkpoints: Checkpoints) -> Progress | None:
    """Bring the model to the newest checkpoint; None where there is none."""
    with checkpoints.newest() as folder:
        if folder is None:
            return None
        found = checkpoint.load(folder, setup.state(), setup.about, elastic=setup.strategy.elastic)
    setup.strategy.load_masters()
    return found


def _train_epoch(
    setup: Setup, progress: Progress, checkpoints: Checkpoints, watch: Watch | None, speed: Speed
) -> None:
    """The rest of the epoch that the position stands in; a checkpoint where one is due on the way."""
    config, epoch = setup.config, progress.position.epoch
    order_N = epoch_order(setup.data.train.hashes, seed=config.seed, epoch=epoch)
    setup.strategy.module.train()
    while progress.position.epoch == epoch:
        batch_B = global_batch(order_N, batch=progress.position.batch, batch_size=config.batch_size)
        skipped = progress.step in progress.skipped
        loss_sum, weight_sum = (0.0, 0.0) if skipped else update(setup, progress, batch_B, speed)
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
    checkpoints.flush()
    restored = _newest(setup, checkpoints)
    assert restored is not None  # the first one is committed before the first step
    restored.skipped = skipped
    _commit(setup, restored, checkpoints)
    logger.warning("%s; back to step %d, skipping %d batches once", error, restored.step, len(skipped))
    return restored


def _close_epoch(setup: Setup, progress: Progress) -> dict[str, float]:
    """Bring together what each rank has for itself, validate, and append the epoch's row to the history."""
    parallel.average(setup.buffers())
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
