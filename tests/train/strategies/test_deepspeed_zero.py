"""What is said where DeepSpeed is missing."""

import pytest
import torch

from train.config_checks import TrainConfigError
from train.strategies.deepspeed_zero import _deepspeed


def test_a_machine_without_deepspeed_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "deepspeed", None)  # an import of it fails
    with pytest.raises(TrainConfigError, match="pip install --no-build-isolation deepspeed") as caught:
        _deepspeed(torch.device("cpu"))
    assert "\n" not in str(caught.value)
