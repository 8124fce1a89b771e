"""Estimates how much memory a run takes on each worker, before it is started: counted on torch's meta device.

Weights, gradients, moments and average are arithmetic over the strategy; activations are what a forward pass of one
microbatch keeps for the backward pass, counted tensor by tensor without allocating them. Left out: the workspace of
libraries, and what `compile` saves.
"""

from dataclasses import dataclass, replace

import torch

from train.config import TrainConfig
from train.strategies.collectives import prepare_blocks
from train.vit.families import blocks
from train.vit.model import build_vit

MOMENTS = 2
FLOAT32, BFLOAT16 = 4, 2


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes on one worker."""

    parameters: int
    """Number of weights."""
    weights: int
    gradients: int
    moments: int
    """The two moments of AdamW."""
    average: int
    gathered: int
    """Weights held beside the sharded ones, while a block is computed or in another precision."""
    activations: int
    host: int = 0
    """Offloaded to the memory of the host."""

    @property
    def device(self) -> int:
        return self.weights + self.gradients + self.moments + self.average + self.gathered + self.activations


def estimate(config: TrainConfig, *, classes: int, side: int) -> Memory:
    """Estimate the memory of one worker at the peak of an update, for the configured number of workers."""
    with torch.device("meta"):
        model = build_vit(config.model, classes=classes, side=side)
    parameters = sum(tensor.numel() for tensor in model.parameters())
    sizes = [
        sum(tensor.numel() for tensor in block.parameters()) for block in blocks(model, config.model.name)
    ]
    largest, rest = max(sizes, default=0), parameters - sum(sizes)
    memory = _STRATEGIES[config.strategy](config, parameters, 3 * largest + rest)
    memory = replace(memory, activations=activations(config, model, side))
    return _offloaded(memory) if config.cpu_offload else memory


def activations(config: TrainConfig, model: torch.nn.Module, side: int) -> int:
    """Count the bytes that one microbatch keeps for the backward pass; checkpointed, one block's and all inputs."""
    if config.precision == "bfloat16":
        model = model.to(torch.bfloat16)
    part = -(-config.batch_size // config.num_workers)
    images = -(-part // config.accumulation())
    whole = _saved(model, images, side)
    if not config.activation_checkpointing:
        return whole
    prepare_blocks(model, replace(config, compile=False))
    return _saved(model, images, side) + whole // len(blocks(model, config.model.name))


def _saved(model: torch.nn.Module, images: int, side: int) -> int:
    """Count the bytes of all tensors but weights that a forward pass saves for the backward pass."""
    weights = {id(tensor) for tensor in model.parameters()}
    saved: dict[int, torch.Tensor] = {}

    def save(tensor: torch.Tensor) -> torch.Tensor:
        whole = tensor if tensor._base is None else tensor._base
        if id(whole) not in weights:
            saved[id(whole)] = whole
        return tensor

    dtype = next(model.parameters()).dtype
    with torch.autograd.graph.saved_tensors_hooks(save, lambda tensor: tensor):
        model(torch.zeros(images, 1, side, side, dtype=dtype, device="meta"))
    return sum(tensor.nbytes for tensor in saved.values())


def _compute_bytes(config: TrainConfig) -> int:
    return BFLOAT16 if config.precision == "bfloat16" else FLOAT32


def _ddp(config: TrainConfig, parameters: int, gathered: int) -> Memory:
    """Count everything whole; autocast keeps a bfloat16 copy of the weights."""
    copy = BFLOAT16 * parameters if config.precision == "bfloat16" else 0
    return _memory(config, parameters, weights=1, gradients=1, state=1, gathered=copy)


def _fsdp(config: TrainConfig, parameters: int, gathered: int) -> Memory:
    """Count everything sharded; gathered are a block, the next one, a block's gradients, and what is in no block.

    As one unit, all weights and their gradients are gathered.
    """
    if config.fsdp_unit == "model":
        gathered = 2 * parameters
    share = 1 / config.num_workers
    return _memory(
        config,
        parameters,
        weights=share,
        gradients=share,
        state=share,
        gathered=_compute_bytes(config) * gathered,
    )


def _deepspeed(config: TrainConfig, parameters: int, gathered: int) -> Memory:
    """Count masters and moments sharded; weights are whole up to stage 2, gradients in stage 1."""
    share = 1 / config.num_workers
    whole = parameters if config.zero_stage < 3 else gathered + int(parameters * share)
    return _memory(
        config,
        parameters,
        weights=share,
        gradients=1 if config.zero_stage == 1 else share,
        state=share,
        gathered=_compute_bytes(config) * whole,
    )


def _memory(
    config: TrainConfig, parameters: int, *, weights: float, gradients: float, state: float, gathered: int
) -> Memory:
    size = FLOAT32 * parameters
    return Memory(
        parameters=parameters,
        weights=int(size * weights),
        gradients=int(size * gradients),
        moments=int(MOMENTS * size * state),
        average=int(size * weights) if config.ema_decay else 0,
        gathered=gathered,
        activations=0,
    )


def _offloaded(memory: Memory) -> Memory:
    """Move what is sharded to the memory of the host."""
    host = memory.weights + memory.gradients + memory.moments + memory.average
    return replace(memory, weights=0, gradients=0, moments=0, average=0, host=host)


_STRATEGIES = {"ddp": _ddp, "fsdp": _fsdp, "deepspeed": _deepspeed}
