"""Adapters are merged into the base."""

from dataclasses import replace
from pathlib import Path

import torch

from serve.explanation.llm import LanguageModel
from tests.train.llm.small_model import CONFIG
from train.llm import merge, model
from train.llm.base_weights import verify
from train.llm.single_process import learn

PAIRS = [(f"What is number {nth}?", f"It is {nth}, a number.") for nth in range(11)]


CPU = torch.device("cpu")


def test_the_merged_export_answers_as_base_and_adapters_did(tiny_llm: Path, tmp_path: Path) -> None:
    weights, _ = learn(CONFIG, tiny_llm, PAIRS, CPU)
    merged = merge.export(tiny_llm, tmp_path, CONFIG, weights, {"run": "run"})
    adapted = model.build(tiny_llm, CONFIG, CPU).eval()
    untouched = model.build(tiny_llm, replace(CONFIG, method="full"), CPU).eval()
    model.fill(adapted, weights)
    plain = model.build(merged, replace(CONFIG, method="full"), CPU).eval()
    tokens_BT = torch.arange(60)[None]
    torch.testing.assert_close(plain(tokens_BT), adapted(tokens_BT), atol=5e-3, rtol=5e-3)
    assert (plain(tokens_BT) - untouched(tokens_BT)).abs().max() > 0.05
    assert verify(merged)["learned"] == {"run": "run"}
    assert LanguageModel.load(merged).name == LanguageModel.load(tiny_llm).name
