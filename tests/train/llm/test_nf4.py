"""Four-bit weights."""

from pathlib import Path

import pytest
import torch

from train.llm import model, nf4
from train.llm.config import LlmConfig

CPU = torch.device("cpu")


def test_four_bits_are_refused_where_there_is_no_cuda(tiny_llm: Path) -> None:
    config = LlmConfig(method="qlora", use_gpu=True, precision="bfloat16")
    with pytest.raises(nf4.Nf4Error, match="needs a CUDA device, this worker has cpu: take method lora"):
        model.build(tiny_llm, config, CPU)


def test_four_bits_without_the_package_say_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nf4, "PACKAGE", "no_such_package")
    with pytest.raises(nf4.Nf4Error, match="python -m pip install no_such_package"):
        nf4.available(torch.device("cuda"))
