"""Rows of several samples: the same logits as alone, and only answers are learned."""

from pathlib import Path

import pytest
import torch

from serve.explanation.llm import LanguageModel
from train.llm import model as llm_model
from train.llm import packing
from train.llm.config import LlmConfig
from train.llm.tokenise import Encoder, LlmDataError, Sample

PAIRS = [("one?", "First."), ("and two?", "The second."), ("three", "3"), ("and four?", "The fourth one.")]
LONG = 512


@pytest.fixture(scope="module")
def samples(tiny_llm: Path) -> list[Sample]:
    return Encoder(tiny_llm).samples(PAIRS, LONG)


def test_the_tokens_before_the_answer_are_those_that_serving_asks_with(tiny_llm: Path) -> None:
    serving = LanguageModel.load(tiny_llm)
    asked = serving._tokenizer.encode(serving._style.apply("What is it?"), bos=True).tolist()
    sample = Encoder(tiny_llm).sample(("What is it?", "A test."))
    assert list(sample.tokens[: sample.answer_from]) == asked
    assert sample.tokens[-1] == serving._tokenizer.eos_id


def test_a_row_is_filled_and_every_sample_is_in_one_row(samples: list[Sample]) -> None:
    longest = max(len(one.tokens) for one in samples)
    packed = packing.rows(samples, longest=2 * longest, packing=True)
    assert len(packed) < len(samples)
    assert all(row.length <= 2 * longest for row in packed)
    assert sorted(one.hash for row in packed for one in row.samples) == [one.hash for one in samples]
    assert packed == packing.rows(samples[::-1], longest=2 * longest, packing=True)


def test_only_the_answer_and_its_end_are_learned(samples: list[Sample]) -> None:
    row = packing.Row(samples=tuple(samples))
    targets_T = packing.batch([row]).targets_BT[0]
    said = [token for one in samples for token in one.tokens[one.answer_from :]]
    assert targets_T[targets_T != packing.NOT_LEARNED].tolist() == said
    assert row.learned == len(said)


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


def test_a_pair_that_is_too_long_is_refused_with_the_length_it_takes(tiny_llm: Path) -> None:
    with pytest.raises(
        LlmDataError, match=r"the longest pair has \d+ tokens, max_seq_length is 16: take \d+ or more"
    ):
        Encoder(tiny_llm).samples(PAIRS, 16)
    with pytest.raises(LlmDataError, match="there is no pair"):
        Encoder(tiny_llm).samples([], 16)
