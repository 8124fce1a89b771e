"""Rows of several samples: the same logits as alone, and only answers are learned."""

from pathlib import Path

import torch

from train.llm import model as llm_model
from train.llm import packing
from train.llm.config import LlmConfig
from train.llm.tokenise import Sample


def test_a_row_is_filled_and_every_sample_is_in_one_row(samples: list[Sample]) -> None:
    longest = max(len(one.tokens) for one in samples)
    packed = packing.rows(samples, longest=2 * longest, packing=True)
    assert len(packed) < len(samples)
    assert all(row.length <= 2 * longest for row in packed)
    assert sorted(one.hash for row in packed for one in row.samples) == [one.hash for one in samples]
    assert packed == packing.rows(samples[::-1], longest=2 * longest, packing=True)


def test_packed_logits_are_those_of_the_samples_alone(tiny_llm: Path, samples: list[Sample]) -> None:
    model = llm_model.build(tiny_llm, LlmConfig(method="full"), torch.device("cpu")).eval()
    packed = packing.batch([packing.Row(samples=tuple(samples)), packing.Row(samples=(samples[0],))])
    together_NV, _ = llm_model.answer_logits(model, packed)
    order = [*samples, samples[0]]
    alone = [llm_model.answer_logits(model, packing.batch([packing.Row(samples=(one,))]))[0] for one in order]
    torch.testing.assert_close(together_NV, torch.cat(alone), atol=1e-5, rtol=1e-5)
    careless = packing.Batch(
        tokens_BT=packed.tokens_BT,
        positions_BT=packed.positions_BT,
        targets_BT=packed.targets_BT,
        mask_B1TT=None,
    )
    assert not torch.allclose(llm_model.answer_logits(model, careless)[0], torch.cat(alone), atol=1e-3)


def test_the_logits_are_those_of_litgpts_own_forward(tiny_llm: Path, samples: list[Sample]) -> None:
    model = llm_model.build(tiny_llm, LlmConfig(method="full"), torch.device("cpu")).eval()
    one = packing.batch([packing.Row(samples=(samples[0],))])
    ours_NV, _ = llm_model.answer_logits(model, one)
    theirs_NV = model(one.tokens_BT)[one.targets_BT != packing.NOT_LEARNED]
    torch.testing.assert_close(ours_NV, theirs_NV)
