"""Strategy `fsdp`: FSDP2 shards parameters, gradients and optimizer state over the workers."""

import warnings

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import (
    CPUOffloadPolicy,
    FSDPModule,
    MixedPrecisionPolicy,
    OffloadPolicy,
    fully_shard,
)

from train.config import TrainConfig
from train.strategies.collectives import prepare_blocks
from train.strategies.optimizer import NamedAdamW
from train.vit.families import blocks


class FullySharded(NamedAdamW):
    """Each block is gathered before it is computed and resharded afterwards, in forward and backward.

    As one unit the model is gathered once an update and stays so until its gradients are computed: for small models on
    CPUs, where memory is plentiful and each collective costs (docs/experiments.md).
    With bfloat16 a block is gathered and computed in it; shards, gradients' sums and the update are float32.
    Gradients are reduced after each microbatch: held whole until the last one they would take more than they save.
    """

    elastic = True

    def __init__(self, module: torch.nn.Module, config: TrainConfig, device: torch.device) -> None:
        prepare_blocks(module, config)
        mesh = init_device_mesh(device.type, (dist.get_world_size(),))
        half = config.precision == "bfloat16"
        policy = MixedPrecisionPolicy(
            param_dtype=torch.bfloat16 if half else None, reduce_dtype=torch.float32 if half else None
        )
        offload = CPUOffloadPolicy() if config.cpu_offload else OffloadPolicy()
        by_block = config.fsdp_unit == "block"
        for part in (*(blocks(module, config.model.name) if by_block else ()), module):
            fully_shard(
                part, mesh=mesh, mp_policy=policy, offload_policy=offload, reshard_after_forward=by_block
            )
        super().__init__(module, config.optim, device)
        # a Swin block ends in a view, which is safe: timm's next block adds to it out of place
        warnings.filterwarnings("ignore", r"FSDP2-wrapped module \(FSDPSwinTransformer", UserWarning)

    def logits(self, x_BCHW: torch.Tensor, *, last: bool = True) -> torch.Tensor:
        logits_BK: torch.Tensor = self.module(x_BCHW)
        return logits_BK.float()

    def backward(self, loss: torch.Tensor) -> None:
        loss.backward()

    def reshard(self) -> None:
        for module in self.module.modules():
            if isinstance(module, FSDPModule):
                module.reshard()

    def load_masters(self) -> None:
        """Do nothing: the model gathers from the masters themselves."""
