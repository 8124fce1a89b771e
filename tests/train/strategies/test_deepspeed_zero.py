"""What DeepSpeed refuses, and what is said where it is missing."""

from typing import Any

import pytest
import torch

from train.config import TrainConfigError
from train.strategies.deepspeed_zero import _deepspeed


def test_deepspeed_refuses_the_state_of_another_number_of_workers(strategies: Any) -> None:
    assert "is of 2 workers, these are 1" in strategies.results["ranks"]
    assert "\n" not in strategies.results["ranks"]


def test_a_machine_without_deepspeed_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "deepspeed", None)  # an import of it fails
    with pytest.raises(TrainConfigError, match="pip install --no-build-isolation deepspeed") as caught:
        _deepspeed(torch.device("cpu"))
    assert "\n" not in str(caught.value)
