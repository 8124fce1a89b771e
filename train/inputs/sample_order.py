"""The order of samples: a pure function of (seed, epoch) and the samples' hashes.

Global batches are cut from that order, and every rank takes a slice of each, so resuming, another number of workers
and "each sample exactly once an epoch" follow from it. Knows neither Ray nor torch.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


def epoch_order(sample_hashes: Sequence[str], *, seed: int, epoch: int) -> np.ndarray:
    """Return the indices into `sample_hashes` in this epoch's order.

    Samples are sorted by the hash of (seed, epoch, sample hash), so the order depends neither on how they were
    stored nor on the version of a random generator.
    Returns:
        order_N: int64, each index once.
    """
    key = f"{seed}:{epoch}:".encode()
    ranks = [
        hashlib.blake2b(key + sample_hash.encode(), digest_size=16).digest() for sample_hash in sample_hashes
    ]
    return np.array(sorted(range(len(ranks)), key=lambda i: (ranks[i], sample_hashes[i], i)), dtype=np.int64)


def batches_per_epoch(samples: int, batch_size: int) -> int:
    """Return the number of global batches of an epoch."""
    return -(-samples // batch_size)


def global_batch(order_N: np.ndarray, *, batch: int, batch_size: int) -> np.ndarray:
    """Return the indices of one global batch, in order; `batch_size` at most.

    An epoch's batches differ by one sample at most. A last batch with the rest could have one or two: batch norm knows
    no variance of one image, and one image would move the weights as far as a whole batch.
    """
    batches = batches_per_epoch(len(order_N), batch_size)
    return rank_slice(order_N, rank=batch, world_size=batches)


def rank_slice(batch_B: np.ndarray, *, rank: int, world_size: int) -> np.ndarray:
    """Return one part of several: contiguous, with sizes that differ by at most one.

    It is empty for some ranks when the batch has fewer samples than there are ranks.
    """
    start, stop = (len(batch_B) * part // world_size for part in (rank, rank + 1))
    return batch_B[start:stop]


@dataclass(frozen=True, kw_only=True)
class Position:
    """The position of a run in its data: `batch` is the next global batch of `epoch`."""

    epoch: int = 0
    batch: int = 0

    def advanced(self, batches: int) -> "Position":
        """Return the position after this batch, in epochs of `batches` batches."""
        if self.batch + 1 == batches:
            return Position(epoch=self.epoch + 1)
        return Position(epoch=self.epoch, batch=self.batch + 1)
