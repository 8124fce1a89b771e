"""AdamW over a model whose parameters are whole or shared out as `DTensor`s: rates, clipping, state by name."""

from typing import Any, cast

import torch
import torch.distributed as dist
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.tensor import DTensor

from train.config import OptimConfig
from train.strategies.collectives import kept_buffers, local
from train.vit.model import parameter_groups

KINDS = ("step", "exp_avg", "exp_avg_sq")


def adamw(model: torch.nn.Module, config: OptimConfig) -> torch.optim.AdamW:
    groups: list[dict[str, Any]] = parameter_groups(model, config)
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=(config.beta1, config.beta2), fused=True)


def begin(optimizer: torch.optim.Optimizer, parameter: torch.Tensor) -> dict[str, torch.Tensor]:
    """Create AdamW's state of a parameter before its first step, so that a saved one can be filled in."""
    state: dict[str, torch.Tensor] = optimizer.state[parameter]
    if not state:
        state["step"] = torch.zeros((), dtype=torch.float32, device=parameter.device)
        state["exp_avg"] = torch.zeros_like(parameter, requires_grad=False)
        state["exp_avg_sq"] = torch.zeros_like(parameter, requires_grad=False)
    return state


def set_rates(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = learning_rate * group.get("lr_scale", 1.0)


class NamedAdamW:
    """The optimizer of the strategies that leave a model its named parameters: `ddp` and `fsdp`."""

    def __init__(self, module: torch.nn.Module, config: OptimConfig, device: torch.device) -> None:
        self.module = module
        self.clip_norm = config.clip_norm
        self.device = device
        self.torch = adamw(module, config)

    def update(self, learning_rate: float) -> float:
        norm = self._clip()
        if norm == norm and norm != float("inf"):
            set_rates(self.torch, learning_rate)
            self.torch.step()
        self.torch.zero_grad()
        return norm

    def _clip(self) -> float:
        """Scale the gradients so that their global norm is at most `clip_norm`; returns the norm before.

        Like `torch.nn.utils.clip_grad_norm_`, but on the local shards with one collective of one number.
        """
        gradients = [parameter.grad for parameter in self.module.parameters() if parameter.grad is not None]
        shards = [local(gradient) for gradient in gradients]
        norms = [torch.linalg.vector_norm(shard).double() for shard in shards]
        squares = torch.stack(norms).square().sum().to(self.device)
        if any(isinstance(gradient, DTensor) for gradient in gradients):
            dist.all_reduce(squares)
        norm = squares.sqrt()
        if self.clip_norm:
            factor = (self.clip_norm / (norm + 1e-6)).clamp(max=1.0).float()
            torch._foreach_mul_(shards, factor.to(shards[0].device))
        return float(norm)

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return the state of model and optimizer by name."""
        named: dict[str, torch.Tensor] = dict(self.module.named_parameters())
        weights = named | kept_buffers(self.module)
        state = {f"model.{name}": tensor.detach() for name, tensor in weights.items()}
        for name, parameter in named.items():
            moments = begin(self.torch, parameter)
            state |= {f"optimizer.{kind}.{name}": moments[kind] for kind in KINDS}
        return state

    def master_weights(self) -> dict[str, torch.Tensor]:
        named = {name: weights.detach() for name, weights in self.module.named_parameters()}
        buffers = self.module.named_buffers()
        return named | {name: buffer for name, buffer in buffers if buffer.is_floating_point()}

    def full_weights(self) -> dict[str, torch.Tensor]:
        options = StateDictOptions(full_state_dict=True, cpu_offload=True)
        weights = cast(dict[str, torch.Tensor], get_model_state_dict(self.module, options=options))
        return {name: copied(tensor) for name, tensor in weights.items()}


def copied(weights: torch.Tensor) -> torch.Tensor:
    """Copy to the CPU, as float32 where it is a floating point number; shares no memory with the model."""
    plain = weights.detach()
    return plain.to(
        "cpu", torch.float32 if plain.is_floating_point() else plain.dtype, copy=True
    ).contiguous()
