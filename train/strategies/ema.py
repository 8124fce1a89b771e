"""A moving average of the weights, evaluated and published if it is on, and part of the state.

It is sharded like the weights, so it costs each rank its share, and no communication. torch's `AveragedModel`
averages a whole module, not a strategy's shards.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from train.strategies.collectives import local
from train.strategies.strategy import Strategy

WARM_UP_STEPS = 10


def decay_at(step: int, decay: float) -> float:
    """Return (1 + step) / (10 + step), at most `decay`: the first averages follow the weights closely."""
    return min(decay, (1 + step) / (WARM_UP_STEPS + step))


class Average:
    """The average of a strategy's master weights and running statistics."""

    def __init__(self, strategy: Strategy, decay: float) -> None:
        self.strategy = strategy
        self.decay = decay
        self.average = {name: weight.detach().clone() for name, weight in strategy.master_weights().items()}

    @torch.no_grad()
    def follow(self, step: int) -> None:
        """Take in the weights after the update of this step, counted from 0."""
        masters = self.strategy.master_weights()
        torch._foreach_lerp_(
            [local(weight) for weight in self.average.values()],
            [local(masters[name]) for name in self.average],
            1 - decay_at(step, self.decay),
        )

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Let the model compute with the average within the context, and with its own weights again afterwards, to
        the bit.
        """
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    @torch.no_grad()
    def _exchange(self) -> None:
        for name, master in self.strategy.master_weights().items():
            mine, theirs = local(self.average[name]), local(master)
            copy = theirs.clone()
            theirs.copy_(mine)
            mine.copy_(copy)
        self.strategy.load_masters()

    def tensors(self) -> dict[str, torch.Tensor]:
        return {f"ema.{name}": weight for name, weight in self.average.items()}

    def buffers(self) -> list[torch.Tensor]:
        """Return the averages of running statistics, which each rank has for itself until they are averaged over
        ranks.
        """
        return [
            self.average[name] for name, _ in self.strategy.module.named_buffers() if name in self.average
        ]
