"""Shared by all strategies: preparing blocks, the few collectives of the loop, freed memory.

Works on CPU (gloo) and CUDA (NCCL) alike; the process group is the caller's.
"""

import ctypes
import sys
from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.distributed as dist
import torch.utils.deterministic
from torch.distributed.tensor import DTensor
from torch.utils.checkpoint import checkpoint

from train.config import TrainConfig
from train.config_checks import TrainConfigError
from train.vit.families import blocks


def prepare_blocks(model: torch.nn.Module, config: TrainConfig) -> None:
    """Make each block recompute its activations in the backward pass, and compile it, as the configuration says.

    Both act in place and leave the names of parameters alone, so every strategy can wrap the model afterwards.
    """
    repeated = blocks(model, config.model.name)
    if (config.activation_checkpointing or config.compile) and not repeated:
        raise TrainConfigError(
            f"{config.model.name} has no blocks: activation_checkpointing and compile do not go with it"
        )
    for block in repeated:
        if config.activation_checkpointing:
            block.forward = _checkpointed(block.forward)
        if config.compile:
            block.compile()


def _checkpointed(forward: Callable[..., Any]) -> Callable[..., Any]:
    def recomputed(*args: Any, **kwargs: Any) -> Any:
        return checkpoint(forward, *args, use_reentrant=False, **kwargs)

    return recomputed


def local(tensor: torch.Tensor) -> torch.Tensor:
    """Return the part of a tensor that lies on this rank; it shares its memory."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def kept_buffers(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Return the buffers that belong to a model's weights, such as running statistics."""
    names = model.state_dict().keys()
    return {name: buffer for name, buffer in model.named_buffers() if name in names}


def average(buffers: Iterable[torch.Tensor]) -> None:
    """Give all ranks the mean of their running statistics (batch norm sees a rank's own images only)."""
    floating = [buffer for buffer in buffers if buffer.is_floating_point()]
    if floating:
        flat = torch.cat([buffer.flatten() for buffer in floating])
        dist.all_reduce(flat)
        flat /= dist.get_world_size()
        for buffer, mean in zip(floating, flat.split([part.numel() for part in floating]), strict=True):
            buffer.copy_(mean.view_as(buffer))


def summed(values: torch.Tensor) -> torch.Tensor:
    """Sum a tensor over all ranks, in place."""
    dist.all_reduce(values)
    return values


def make_deterministic(threads: int) -> None:
    """Set up a training process: so many threads of torch, and the same bits from the same numbers."""
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    keep_freed_memory()


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
