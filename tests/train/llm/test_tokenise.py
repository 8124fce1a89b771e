"""Pairs become tokens."""

from pathlib import Path

import pytest

from serve.explanation.llm import LanguageModel
from tests.train.llm.pairs import PAIRS
from train.llm import packing
from train.llm.tokenise import Encoder, LlmDataError, Sample


def test_the_tokens_before_the_answer_are_those_that_serving_asks_with(tiny_llm: Path) -> None:
    serving = LanguageModel.load(tiny_llm)
    asked = serving._tokenizer.encode(serving._style.apply("What is it?"), bos=True).tolist()
    sample = Encoder(tiny_llm).sample(("What is it?", "A test."))
    assert list(sample.tokens[: sample.answer_from]) == asked
    assert sample.tokens[-1] == serving._tokenizer.eos_id


def test_only_the_answer_and_its_end_are_learned(samples: list[Sample]) -> None:
    row = packing.Row(samples=tuple(samples))
    targets_T = packing.batch([row]).targets_BT[0]
    said = [token for one in samples for token in one.tokens[one.answer_from :]]
    assert targets_T[targets_T != packing.NOT_LEARNED].tolist() == said
    assert row.learned == len(said)


def test_a_pair_that_is_too_long_is_refused_with_the_length_it_takes(tiny_llm: Path) -> None:
    with pytest.raises(
        LlmDataError, match=r"the longest pair has \d+ tokens, max_seq_length is 16: take \d+ or more"
    ):
        Encoder(tiny_llm).samples(PAIRS, 16)
    with pytest.raises(LlmDataError, match="there is no pair"):
        Encoder(tiny_llm).samples([], 16)
