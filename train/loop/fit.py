"""The training loop of both models: epochs, steps, validation, checkpoints. Knows neither Ray, MLflow nor S3.

Every rank runs it with the same arguments. Everything that happens at a position is a pure function of the
configuration, the data and the state, so an interrupted run ends with the same bits.
"""

import hashlib
import logging

import torch
import torch.distributed as dist
from torch.distributed.tensor import DTensor

from train.checkpoints import state as checkpoint
from train.checkpoints.state import Progress
from train.checkpoints.store import Mark
from train.inputs.sample_order import epoch_order, global_batch
from train.loop.interfaces import (
    NO_CALLBACKS,
    Checkpoints,
    Preempted,
    Setup,
    Speed,
    StopRequested,
    TrainingCallbacks,
    TrainingDivergedError,
    count_batches,
    count_steps,
    rate_at,
)
from train.strategies import collectives

SKIPPED_BATCHES = 4
"""Batches that are skipped after a divergence, from the one that diverged; at most to the end of its epoch."""

logger = logging.getLogger(__name__)


def fit(setup: Setup, checkpoints: Checkpoints, callbacks: TrainingCallbacks = NO_CALLBACKS) -> Progress:
    """Train from the newest checkpoint, or from the beginning, to the last epoch.

    Raises:
        CheckpointError: the newest checkpoint belongs to another run.
        TrainingDivergedError: the gradient is NaN or infinite; where batches are skipped, for the second time.
        Preempted: the machine is about to be taken away.
        StopRequested: `callbacks.should_continue` returned False.
    """
    progress = _restore(setup, checkpoints)
    if progress is None:
        progress = Progress()
        if setup.skips_diverged:
            _commit(setup, progress, checkpoints)  # so that a divergence before the next one has a way back
    elif progress.history:
        _stop_if_requested(setup, progress, checkpoints, callbacks)
    while progress.position.epoch < setup.config.epochs:
        speed = Speed()
        try:
            _train_epoch(setup, progress, checkpoints, callbacks, speed)
        except TrainingDivergedError as error:
            if not setup.skips_diverged:
                raise
            progress = _go_back(setup, progress, checkpoints, error)
            continue
        row = _close_epoch(setup, progress)
        callbacks.epoch(row, setup.speed_row(speed))
        _commit(setup, progress, checkpoints)
        _stop_if_requested(setup, progress, checkpoints, callbacks)
    checkpoints.flush()
    return progress


def _stop_if_requested(
    setup: Setup, progress: Progress, checkpoints: Checkpoints, callbacks: TrainingCallbacks
) -> None:
    """Call `should_continue` with the state committed; after the last epoch its answer changes nothing."""
    if callbacks.should_continue is not None:
        checkpoints.flush()
        continues = callbacks.should_continue(progress.history)
        if not continues and progress.position.epoch < setup.config.epochs:
            raise StopRequested


def _restore(setup: Setup, checkpoints: Checkpoints) -> Progress | None:
    """Fill the state from the newest checkpoint; None if there is none."""
    with checkpoints.newest() as folder:
        if folder is None:
            return None
        progress = checkpoint.load(folder, setup.state(), setup.about, elastic=setup.elastic)
    setup.adopt()
    return progress


def _train_epoch(
    setup: Setup, progress: Progress, checkpoints: Checkpoints, callbacks: TrainingCallbacks, speed: Speed
) -> None:
    """Train the rest of the current epoch."""
    config, epoch = setup.config, progress.position.epoch
    order_N = epoch_order(setup.hashes, seed=config.seed, epoch=epoch)
    while progress.position.epoch == epoch:
        batch_B = global_batch(order_N, batch=progress.position.batch, batch_size=config.batch_size)
        # dropout depends on seed, step and rank only, so that checkpoints need no generator state
        torch.manual_seed(_seed(config.seed, progress.step, dist.get_rank()))
        skipped = progress.step in progress.skipped
        loss_sum, weight_sum = (0.0, 0.0) if skipped else setup.update(progress, batch_B, speed)
        progress.loss_sum += loss_sum
        progress.weight_sum += weight_sum
        progress.step += 1
        progress.position = progress.position.advanced(count_batches(setup))
        if not skipped:
            callbacks.step(progress, count_steps(setup), loss_sum / max(weight_sum, 1e-9))
        _commit_if_due(setup, progress, checkpoints)


def _commit_if_due(setup: Setup, progress: Progress, checkpoints: Checkpoints) -> None:
    """Commit after a step, at the interval or before the machine goes; the end of an epoch has its own commit."""
    interval, leaves = setup.config.checkpoint_every_steps, checkpoints.must_leave()
    if progress.position.batch and (leaves or (interval and progress.step % interval == 0)):
        _commit(setup, progress, checkpoints)
        if leaves:
            checkpoints.flush()
            raise Preempted


def _go_back(
    setup: Setup, progress: Progress, checkpoints: Checkpoints, error: TrainingDivergedError
) -> Progress:
    """Return to the newest checkpoint, and skip the batches from the one that diverged.

    The skipped steps do not depend on which checkpoint that is, so what follows does not either.
    Raises:
        TrainingDivergedError: batches of this run were skipped before.
    """
    if progress.skipped:
        raise TrainingDivergedError(
            f"{error}; steps {progress.skipped[0]} to {progress.skipped[-1]} were skipped for the same reason before"
        ) from error
    rest = count_batches(setup) - progress.position.batch
    skipped = [progress.step + nth for nth in range(min(SKIPPED_BATCHES, rest))]
    checkpoints.flush()
    restored = _restore(setup, checkpoints)
    assert restored is not None  # the first one is committed before the first step
    restored.skipped = skipped
    _commit(setup, restored, checkpoints)
    logger.warning("%s; back to step %d, skipping %d batches once", error, restored.step, len(skipped))
    return restored


def _close_epoch(setup: Setup, progress: Progress) -> dict[str, float]:
    """Average running statistics and losses over the ranks, validate, and append the row to the history."""
    collectives.average(setup.buffers())
    sums_2 = torch.tensor([progress.loss_sum, progress.weight_sum], dtype=torch.float64, device=setup.device)
    loss_sum, weight_sum = collectives.summed(sums_2).tolist()
    row = {
        "epoch": progress.position.epoch,
        "step": progress.step,
        "train_loss": loss_sum / max(weight_sum, 1e-9),
        "learning_rate": rate_at(setup, progress.step - 1),
        **setup.validate(),
    }
    progress.loss_sum = progress.weight_sum = 0.0
    progress.history.append(row)
    return row


def _commit(setup: Setup, progress: Progress, checkpoints: Checkpoints) -> None:
    """Copy the state and publish the copy; the last one has the weights in files of their own."""
    state, ended = setup.state(), progress.position.epoch == setup.config.epochs
    own = {buffer.data_ptr() for buffer in setup.buffers() if buffer.numel()}
    part = checkpoint.snapshot(
        state,
        progress,
        setup.about,
        own={
            name
            for name, tensor in state.items()
            if not isinstance(tensor, DTensor) and tensor.data_ptr() in own
        },
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
