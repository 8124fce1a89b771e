"""The interface between the training loop and the layout of weights on workers: `ddp`, `fsdp` or `deepspeed`.

The loop scales each microbatch's loss so that the mean of gradients over ranks is the exact gradient of the weighted
mean over the global batch; every strategy takes that mean, and nothing else depends on it.
"""

from collections.abc import Callable
from typing import Protocol

import torch

from train.config import TrainConfig
from train.strategies.ddp import DataParallel
from train.strategies.deepspeed_zero import DeepSpeedZero
from train.strategies.fsdp import FullySharded


class Strategy(Protocol):
    """A model and its optimizer as they lie on the workers; all ranks call each method together."""

    module: torch.nn.Module
    """The plain model: names, `train()` and `eval()`, buffers."""
    elastic: bool
    """Whether its state can be loaded by another number of ranks."""

    def logits(self, x_BCHW: torch.Tensor, *, last: bool = True) -> torch.Tensor:
        """Compute the model's outputs, float32, with or without gradients; `last`: of the last microbatch before
        `update`.
        """

    def backward(self, loss: torch.Tensor) -> None:
        """Add the gradients of one microbatch."""

    def update(self, learning_rate: float) -> float:
        """Clip, step, reset the gradients.

        Returns:
            the global gradient norm before clipping, equal on all ranks; if it is not finite the weights must not
            be used any more.
        """

    def reshard(self) -> None:
        """Release gathered parameters, as after validation, where no backward pass does it."""

    def master_weights(self) -> dict[str, torch.Tensor]:
        """Return the float32 weights that the optimizer changes, as they lie here; change them in place, then call
        `load_masters`.
        """

    def load_masters(self) -> None:
        """Make the model compute with the current master weights."""

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return the whole state of model and optimizer, by name, to be saved or filled in place (then
        `load_masters`).

        A `DTensor` is sharded over the ranks; a plain tensor is the same on all of them.
        """

    def full_weights(self) -> dict[str, torch.Tensor]:
        """Return the unsharded weights on the CPU, float32, by timm's names; on rank 0, other ranks may return none."""


STRATEGIES: dict[str, Callable[[torch.nn.Module, TrainConfig, torch.device], Strategy]] = {
    "ddp": DataParallel,
    "fsdp": FullySharded,
    "deepspeed": DeepSpeedZero,
}


def wrap(model: torch.nn.Module, config: TrainConfig, device: torch.device) -> Strategy:
    """Lay a model out over the ranks as the configuration says, with its optimizer.

    Raises:
        TrainConfigError: the strategy needs something that this machine or model lacks.
    """
    return STRATEGIES[config.strategy](model.to(device), config, device)
