"""The language model that is fine-tuned: a LitGPT checkpoint, whole or with adapters, and the loss of its answers.

With adapters the checkpoint's weights are frozen (in 4 bits for QLoRA, `train.llm.nf4`) and only the adapters are
learned, in float32. Knows neither Ray nor the store.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from litgpt import lora
from litgpt.config import Config
from litgpt.model import GPT
from safetensors import SafetensorError, safe_open

from cluster.expected import ExpectedError
from train.llm import nf4
from train.llm.base_weights import WEIGHTS_NAME
from train.llm.config import LlmConfig
from train.llm.packing import NOT_LEARNED, Batch

HEAD, EMBEDDING = "lm_head.weight", "transformer.wte.weight"
FOREIGN = ("sliding_window_size", "attention_logit_softcapping", "final_logit_softcapping", "rope_indices")
"""Settings of architectures whose attention would ignore our mask, or whose head is more than a product."""


class LlmModelError(ExpectedError):
    """The checkpoint cannot be fine-tuned; the message says why."""


def read_weights(directory: Path) -> dict[str, torch.Tensor]:
    """Read the tensors of a checkpoint as they are stored.

    Raises:
        LlmModelError: the file is missing or damaged.
    """
    path = directory / WEIGHTS_NAME
    try:
        with safe_open(path, framework="pt") as file:
            names = file.keys()
            return {name: file.get_tensor(name) for name in names}
    except (OSError, SafetensorError) as error:
        raise LlmModelError(
            f"{path.name} of the base model is missing or damaged ({error}): take another --base, or restore the bucket"
        ) from error


def architecture(directory: Path) -> Config:
    """Read the architecture of a checkpoint.

    Raises:
        LlmModelError: it is not supported.
    """
    try:
        config = Config.from_checkpoint(directory)
    except (OSError, TypeError, ValueError) as error:
        raise LlmModelError(f"the base model is no LitGPT checkpoint: {error}") from error
    odd = [name for name in FOREIGN if getattr(config, name) is not None]
    if config.latent_attention or odd:
        raise LlmModelError(
            f"{config.name} has {', '.join(odd) or 'latent attention'}, which fine-tuning does not know: take a plain "
            "transformer such as SmolLM2, Llama, Mistral or Qwen2"
        )
    return config


def describe(directory: Path, config: LlmConfig) -> str:
    """Describe what the tensors of a checkpoint of this run belong to."""
    base = architecture(directory)
    shape = f"{base.name}, {base.n_layer} layers of {base.n_embd}"
    return f"{shape}, {config.method}" + (f" {json.dumps(asdict(config.lora))}" if config.adapts else "")


def build(directory: Path, config: LlmConfig, device: torch.device) -> GPT:
    """Read the base and create its adapters, whose first values depend on the seed alone.

    Raises:
        LlmModelError: the weights do not fit the architecture, or NF4 is not available here.
    """
    base = architecture(directory)
    frozen = torch.bfloat16 if config.adapts and config.precision == "bfloat16" else torch.float32
    weights = {name: tensor.to(frozen) for name, tensor in read_weights(directory).items()}
    model = _adapted(base, config) if config.adapts else _bare(GPT, base)
    try:
        missing, foreign = model.load_state_dict(weights, strict=False, assign=True)
    except RuntimeError as error:
        raise LlmModelError(
            f"the base model's weights are of another architecture: {_line(error)}"
        ) from error
    lacking = [name for name in missing if "lora_" not in name and not name.startswith("lm_head.")]
    if lacking or foreign:
        raise LlmModelError(
            f"the base model's weights are of another architecture: {[*lacking, *foreign][0]} is on one side only"
        )
    _tie(model, tied=HEAD not in weights)
    if config.adapts:
        _begin_adapters(model, config.seed)
        lora.mark_only_lora_as_trainable(model)
    if config.method == "qlora":
        nf4.quantise(model, device)
    model.max_seq_length = config.max_seq_length
    model.cos, model.sin = model.rope_cache(device=device)  # those of the empty model have no values
    model.to(device)
    return model


def _bare(kind: type[GPT], config: Config) -> GPT:
    with torch.device("meta"):
        return kind(config)


def _adapted(base: Config, config: LlmConfig) -> GPT:
    chosen = {
        f"lora_{name}": name in config.lora.targets for name in ("query", "key", "value", "projection", "mlp")
    }
    return _bare(
        lora.GPT,
        lora.Config(
            **asdict(base),
            lora_r=config.lora.r,
            lora_alpha=config.lora.alpha,
            lora_dropout=config.lora.dropout,
            lora_head="head" in config.lora.targets,
            **chosen,
        ),
    )


def _tie(model: GPT, *, tied: bool) -> None:
    """Tie the head to the embedding if the checkpoint has no head."""
    if tied:
        head = model.lm_head.linear if isinstance(model.lm_head, lora.LoRALinear) else model.lm_head
        head.weight = model.transformer.wte.weight


def _begin_adapters(model: GPT, seed: int) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for module in model.modules():
            if isinstance(module, lora.LoRALinear) and hasattr(module, "lora_A"):
                for name in ("lora_A", "lora_B"):
                    empty = torch.empty(getattr(module, name).shape, dtype=torch.float32)
                    setattr(module, name, torch.nn.Parameter(empty))
                module.reset_parameters()


def learned(model: GPT) -> dict[str, torch.nn.Parameter]:
    """Return the parameters that change, by name; a tied head is named once."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def answer_logits(model: GPT, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute logits at the tokens that are learned, and return their targets: (N, vocabulary) and (N).

    LitGPT's own `forward` takes no mask outside of generation, so its parts are called here one by one.
    """
    chosen = batch.targets_BT != NOT_LEARNED
    return model.lm_head(hidden(model, batch)[chosen]).float(), batch.targets_BT[chosen]


def hidden(model: GPT, batch: Batch) -> torch.Tensor:
    """Compute the inputs of the head, (B, T, width)."""
    x_BTC = model.transformer.wte(batch.tokens_BT)
    if model.config.scale_embeddings:
        x_BTC = x_BTC * torch.tensor(model.config.n_embd**0.5, dtype=x_BTC.dtype)
    cos_BTR, sin_BTR = model.cos[batch.positions_BT], model.sin[batch.positions_BT]
    for block in model.transformer.h:
        x_BTC = block(x_BTC, cos_BTR, sin_BTR, batch.mask_B1TT)
    x_BTC = model.transformer.ln_f(x_BTC)
    assert isinstance(x_BTC, torch.Tensor)
    return x_BTC


def answer_loss(model: GPT, batch: Batch, config: LlmConfig) -> torch.Tensor:
    """Sum the cross entropies of the learned tokens."""
    half = config.precision == "bfloat16"
    with torch.autocast(batch.tokens_BT.device.type, dtype=torch.bfloat16, enabled=half):
        logits_NV, targets_N = answer_logits(model, batch)
    return F.cross_entropy(logits_NV.float(), targets_N, reduction="sum")


def fill(model: GPT, weights: Mapping[str, torch.Tensor]) -> None:
    """Set the learned parameters.

    Raises:
        LlmModelError: the names differ.
    """
    own = learned(model)
    if own.keys() != weights.keys():
        odd = sorted(own.keys() ^ weights.keys())[0]
        raise LlmModelError(f"the learned weights are of another architecture: {odd} is on one side only")
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.copy_(weights[name])


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


def as_stored(values: Mapping[str, Any], like: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Convert tensors to the precision of the base's file, ready to be written."""
    return {name: values[name].detach().to("cpu", like[name].dtype).contiguous() for name in like}
