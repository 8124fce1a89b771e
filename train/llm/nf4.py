"""QLoRA's frozen weights: 4 bits each, in the NF4 format of bitsandbytes, on CUDA (arXiv:2305.14314).

LitGPT's adapters keep their frozen part in `linear`; here it becomes a 4-bit layer. Embedding, head, norms and
adapters stay as they are. The package bitsandbytes is optional: `python -m pip install bitsandbytes`.
"""

import importlib.util
from typing import Any

import torch
from litgpt.lora import LoRALinear

from cluster.expected import ExpectedError

PACKAGE = "bitsandbytes"


class Nf4Error(ExpectedError):
    """4-bit weights are not available on this machine; the message says what to do."""


def available(device: torch.device) -> None:
    """Check that 4-bit weights are available.

    Raises:
        Nf4Error: no CUDA device, or the package is missing.
    """
    if device.type != "cuda":
        raise Nf4Error(
            f"method qlora needs a CUDA device, this worker has {device.type}: take method lora, or use_gpu true"
        )
    if importlib.util.find_spec(PACKAGE) is None:
        raise Nf4Error(
            f"method qlora needs the package {PACKAGE} on the workers: run `python -m pip install {PACKAGE}` there, or "
            "take method lora"
        )


def quantise(model: torch.nn.Module, device: torch.device) -> None:
    """Replace the frozen weights beside each adapter by a 4-bit layer, except in the head.

    Raises:
        Nf4Error: see `available`.
    """
    available(device)
    import bitsandbytes as bnb

    for name, module in list(model.named_modules()):
        if isinstance(module, LoRALinear) and name != "lm_head":
            module.linear = _four_bits(bnb, module.linear, device)


def _four_bits(bnb: Any, dense: torch.nn.Linear, device: torch.device) -> torch.nn.Module:
    """Build a 4-bit layer with double quantisation (`compress_statistics`) and bfloat16 arithmetic.

    The move to the device quantises.
    """
    small = bnb.nn.Linear4bit(
        dense.in_features,
        dense.out_features,
        bias=dense.bias is not None,
        compute_dtype=torch.bfloat16,
        compress_statistics=True,
        quant_type="nf4",
        device="meta",
    )
    small.weight = bnb.nn.Params4bit(dense.weight.data, requires_grad=False, quant_type="nf4")
    if dense.bias is not None:
        small.bias = torch.nn.Parameter(dense.bias.data, requires_grad=False)
    return small.to(device)
