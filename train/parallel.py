"""FSDP2 over the workers of a run, and the few collectives that the loop needs besides.

Works on CPU (gloo) and CUDA (NCCL) alike; the process group is the caller's.
"""

import ctypes
import sys

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor

from train.config import TrainConfig


def shard(model: torch.nn.Module, config: TrainConfig) -> None:
    """Shard parameters, gradients and optimizer state over all ranks, in place.

    On a CPU the model is one group that stays gathered until the backward pass: there memory is plentiful and
    each collective costs. On a GPU each block is gathered when it is its turn. With bfloat16, gradients are
    still reduced in float32.
    """
    cpu = next(model.parameters()).device.type == "cpu"
    mesh = init_device_mesh("cpu" if cpu else "cuda", (dist.get_world_size(),))
    half = config.precision == "bfloat16"
    policy = MixedPrecisionPolicy(
        param_dtype=torch.bfloat16 if half else None, reduce_dtype=torch.float32 if half else None
    )
    for block in () if cpu else _blocks(model):
        fully_shard(block, mesh=mesh, mp_policy=policy)
    fully_shard(model, mesh=mesh, mp_policy=policy, reshard_after_forward=not cpu)


def _blocks(model: torch.nn.Module) -> list[torch.nn.Module]:
    """The repeated parts of a timm transformer: its blocks, or those of its stages."""
    lists = [one for name, one in model.named_modules() if name.rsplit(".", 1)[-1] == "blocks"]
    return [block for one in lists for block in one.children()]


def average_buffers(model: torch.nn.Module) -> None:
    """Give all ranks the mean of their running statistics (batch norm sees a rank's own images only)."""
    buffers = [one for one in model.buffers() if one.is_floating_point()]
    if buffers:
        flat = torch.cat([one.flatten() for one in buffers])
        dist.all_reduce(flat)
        flat /= dist.get_world_size()
        for one, mean in zip(buffers, flat.split([one.numel() for one in buffers]), strict=True):
            one.copy_(mean.view_as(one))


def reshard(model: torch.nn.Module) -> None:
    """Let go of gathered parameters, as after validation, where no backward pass does it."""
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def clip_gradients(model: torch.nn.Module, max_norm: float) -> float:
    """Scale the sharded gradients so that their global norm is at most `max_norm`.

    Like `torch.nn.utils.clip_grad_norm_`, but on the local shards with one collective of one number.
    Returns:
        the norm before clipping.
    """
    shards = [
        one.grad.to_local() if isinstance(one.grad, DTensor) else one.grad
        for one in model.parameters()
        if one.grad is not None
    ]
    squares = torch.stack([torch.linalg.vector_norm(one).double() for one in shards]).square().sum()
    dist.all_reduce(squares)
    norm = squares.sqrt()
    if max_norm:
        torch._foreach_mul_(shards, (max_norm / (norm + 1e-6)).clamp(max=1.0).float())
    return float(norm)


def summed(values: torch.Tensor) -> torch.Tensor:
    """The sum of a tensor over all ranks, in place."""
    dist.all_reduce(values)
    return values


def keep_freed_memory() -> None:
    """Ask glibc to keep freed memory: a training step frees and asks for the same gigabyte each time.

    Measured with ViT-tiny on two virtual cores: 20,000 page faults a step become 60, a step takes 10 % less.
    Does nothing where the C library is another.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        m_mmap_max, m_trim_threshold = -4, -1
        mallopt(m_mmap_max, 0)
        mallopt(m_trim_threshold, 2**31 - 1)
