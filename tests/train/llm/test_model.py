"""The language model: its base and its adapters."""

from pathlib import Path

import pytest
import safetensors.torch
import torch

from tests.train.llm.small_model import CONFIG
from train.llm import model
from train.llm.model import LlmModelError

CPU = torch.device("cpu")


def test_a_base_of_other_shapes_or_with_a_torn_file_is_one_line(tiny_llm: Path, tmp_path: Path) -> None:
    for path in tiny_llm.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    weights = tmp_path / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-100])
    with pytest.raises(LlmModelError, match="is missing or damaged"):
        model.build(tmp_path, CONFIG, CPU)
    tensors = safetensors.torch.load(whole)
    del tensors["transformer.ln_f.weight"]
    safetensors.torch.save_file(tensors, weights)
    with pytest.raises(
        LlmModelError, match=r"another architecture: transformer\.ln_f\.weight is on one side only"
    ):
        model.build(tmp_path, CONFIG, CPU)
