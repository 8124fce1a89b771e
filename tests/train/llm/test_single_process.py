"""A fine-tuning in one process."""

import json
from dataclasses import replace
from pathlib import Path

import torch

from tests.train.llm.small_model import CONFIG
from train.llm.single_process import learn

PAIRS = [(f"What is number {nth}?", f"It is {nth}, a number.") for nth in range(11)]


CPU = torch.device("cpu")


def test_what_is_learned_in_bfloat16_is_float32_and_gets_better(tiny_llm: Path) -> None:
    weights, progress = learn(replace(CONFIG, precision="bfloat16"), tiny_llm, PAIRS, CPU)
    assert {one.dtype for one in weights.values()} == {torch.float32}
    assert progress.history[-1]["train_loss"] < progress.history[0]["train_loss"]


def test_the_history_is_what_json_takes(tiny_llm: Path) -> None:
    _, progress = learn(replace(CONFIG, epochs=1), tiny_llm, PAIRS, CPU)
    assert json.loads(json.dumps(progress.history))[0]["epoch"] == 1
