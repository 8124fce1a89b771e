"""The one seam between the training loop and how weights lie on the workers: `ddp`, `fsdp` or `deepspeed`.

The loop scales each microbatch's loss so that the mean of gradients over ranks is the exact gradient of the
weighted mean over the global batch; every strategy takes that mean, and nothing else depends on it.
"""

from collections.abc import Callable
from typing import Protocol

import torch

from train.config import TrainConfig
from train.ddp import Replicated
from train.fsdp import Sharded
from train.zero import Zero


class Strategy(Protocol):
    """A model and its optimizer as they lie on the workers; all ranks call each method together."""

    module: torch.nn.Module
    """The plain model: names, `train()` and `eval()`, buffers."""
    elastic: bool
    """Whether its state can go on with another number of ranks."""

    def logits(self, x_BCHW: torch.Tensor, *, last: bool = True) -> torch.Tensor:
        """The model's outputs, float32, with or without gradients; `last`: of the last microbatch before `update`."""

    def backward(self, loss: torch.Tensor) -> None:
        """Add the gradients of one microbatch."""

    def update(self, learning_rate: float) -> float:
        """Clip, step, forget the gradients.

        Returns:
            the global gradient norm before clipping, equal on all ranks; where it is no number the weights are
            not to be used any more.
        """

    def settle(self) -> None:
        """Let go of gathered parameters, as after validation, where no backward pass does it."""

    def masters(self) -> dict[str, torch.Tensor]:
        """The float32 weights that the optimizer changes, as they lie here; in place, then `adopt`."""

    def adopt(self) -> None:
        """Compute with the masters as they are now."""

    def tensors(self) -> dict[str, torch.Tensor]:
        """The whole state of model and optimizer, by name, to be saved or filled in place (then `adopt`).

        A `DTensor` is shared out over the ranks; a plain tensor is the same on all of them.
        """

    def full_weights(self) -> dict[str, torch.Tensor]:
        """The unsharded weights on the CPU, float32, by timm's names; on rank 0, elsewhere there may be none."""


STRATEGIES: dict[str, Callable[[torch.nn.Module, TrainConfig, torch.device], Strategy]] = {
    "ddp": Replicated,
    "fsdp": Sharded,
    "deepspeed": Zero,
}


def wrap(model: torch.nn.Module, config: TrainConfig, device: torch.device) -> Strategy:
    """Lay a model out over the ranks as the configuration says, with its optimizer.

    Raises:
        TrainConfigError: the strategy needs something that this machine or model lacks.
    """
    return STRATEGIES[config.strategy](model.to(device), config, device)
