"""From learned weights back to an ordinary LitGPT checkpoint, which `serve.explanation.llm` loads like any other.

Adapters are added, in float32, to the weights that they were trained beside, and the sum is stored in the precision
of the base's file. The base is read again, so QLoRA's rounding to 4 bits is not in the result.
"""

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from litgpt import lora

from train.llm import model as llm_model
from train.llm.base_weights import CARD_NAME, WEIGHTS_NAME
from train.llm.config import LlmConfig

ADAPTER_CARD = "learned"
"""Key in the card: what was learned, and from what."""


def export(
    base: Path,
    directory: Path,
    config: LlmConfig,
    weights: Mapping[str, torch.Tensor],
    about: Mapping[str, Any],
) -> Path:
    """Write the merged checkpoint into an empty folder.

    Args:
        base: the checkpoint that the weights were learned from.
        weights: what was learned, by name.
        about: for the card, under `learned`.
    Raises:
        LlmModelError: base and weights are of different architectures.
    """
    stored = llm_model.read_weights(base)
    merged = llm_model.as_stored(_merged(base, config, weights), stored)
    safetensors.torch.save_file(merged, directory / WEIGHTS_NAME)
    for path in base.iterdir():
        if path.suffix in (".json", ".yaml") and path.name != CARD_NAME:
            shutil.copyfile(path, directory / path.name)
    card = json.loads((base / CARD_NAME).read_text())
    files = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(directory.iterdir())}
    made = {**card, "files": files, ADAPTER_CARD: dict(about)}
    (directory / CARD_NAME).write_text(json.dumps(made, ensure_ascii=False, indent=2), encoding="utf-8")
    return directory


def _merged(base: Path, config: LlmConfig, weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return all weights by the base's names, float32."""
    plain = replace(config, method="lora" if config.adapts else "full", precision="float32")
    model = llm_model.build(base, plain, torch.device("cpu"))
    llm_model.fill(model, weights)
    with torch.no_grad():
        lora.merge_lora_weights(model)
    return {
        name.replace(".linear.", "."): tensor
        for name, tensor in model.state_dict().items()
        if ".lora_" not in name
    }
