"""A moving average of the weights: what is evaluated and published when it is on, and a part of the state.

It lies on the ranks as the weights do, so it costs each of them their share, and no communication.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from train.parallel import local
from train.strategy import Strategy

WARM_UP_STEPS = 10


def decay_at(step: int, decay: float) -> float:
    """The first averages follow the weights closely: (1 + step) / (10 + step), at most `decay`."""
    return min(decay, (1 + step) / (WARM_UP_STEPS + step))


class Average:
    """The average of a strategy's master weights and running statistics."""

    def __init__(self, strategy: Strategy, decay: float) -> None:
        self.strategy = strategy
        self.decay = decay
        self.average = {name: one.detach().clone() for name, one in strategy.masters().items()}

    @torch.no_grad()
    def follow(self, step: int) -> None:
        """Take in the weights after the update of this step, counted from 0."""
        masters = self.strategy.masters()
        torch._foreach_lerp_(
            [local(one) for one in self.average.values()],
            [local(masters[name]) for name in self.average],
            1 - decay_at(step, self.decay),
        )

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Within it the model computes with the average; after it with its own weights again, to the bit."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    @torch.no_grad()
    def _exchange(self) -> None:
        for name, master in self.strategy.masters().items():
            mine, theirs = local(self.average[name]), local(master)
            held = theirs.clone()
            theirs.copy_(mine)
            mine.copy_(held)
        self.strategy.adopt()

    def tensors(self) -> dict[str, torch.Tensor]:
        return {f"ema.{name}": one for name, one in self.average.items()}

    def buffers(self) -> list[torch.Tensor]:
        """The averages of running statistics, which each rank has for itself until they are averaged over ranks."""
        return [
            self.average[name] for name, _ in self.strategy.module.named_buffers() if name in self.average
        ]
