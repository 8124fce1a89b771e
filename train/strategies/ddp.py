"""Strategy `ddp`: every worker holds the whole model; gradients are averaged while the backward pass goes on."""

import warnings
from typing import cast

import torch
from torch.nn.parallel import DistributedDataParallel

from train.config import TrainConfig
from train.strategies.collectives import prepare_blocks
from train.strategies.optimizer import NamedAdamW


class DataParallel(NamedAdamW):
    """Data parallel; with bfloat16 the weights stay float32 and operations are cast (autocast)."""

    elastic = True

    def __init__(self, module: torch.nn.Module, config: TrainConfig, device: torch.device) -> None:
        prepare_blocks(module, config)
        super().__init__(module, config.optim, device)
        self.half = config.precision == "bfloat16"
        self.ddp = DistributedDataParallel(module, forward_sync_buffers=False, gradient_as_bucket_view=True)
        self.laid_out = False
        # a class token's gradient is a view of a larger one and is copied: harmless
        warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides", UserWarning)

    def logits(self, x_BCHW: torch.Tensor, *, last: bool = True) -> torch.Tensor:
        if not torch.is_grad_enabled():
            return self._ask(self.module, x_BCHW)
        if not self.laid_out:
            self._lay_out(torch.zeros_like(x_BCHW[:2]))
        # `no_sync` sets the same, but would have to span both passes
        self.ddp.require_backward_grad_sync = last
        return self._ask(self.ddp, x_BCHW)

    def _ask(self, model: torch.nn.Module, x_BCHW: torch.Tensor) -> torch.Tensor:
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.half):
            return cast(torch.Tensor, model(x_BCHW)).float()

    def _lay_out(self, blank_BCHW: torch.Tensor) -> None:
        """Make DDP order its buckets before the first step of this process, on blank images that change nothing.

        It does so after the first backward pass that it sees. Without this, three or more ranks would sum a
        resumed run's first gradients in another order than the undisturbed run did, and end with other bits.
        """
        self.laid_out = True
        buffers = [buffer.clone() for buffer in self.module.buffers()]
        with torch.random.fork_rng([self.device] if self.device.type == "cuda" else []):
            self._ask(self.ddp, blank_BCHW).sum().backward()
        self.torch.zero_grad()
        with torch.no_grad():
            for buffer, before in zip(self.module.buffers(), buffers, strict=True):
                buffer.copy_(before)

    def backward(self, loss: torch.Tensor) -> None:
        loss.backward()

    def reshard(self) -> None:
        """Do nothing: no parameter is gathered."""

    def load_masters(self) -> None:
        """Do nothing: the model computes with the master weights."""
