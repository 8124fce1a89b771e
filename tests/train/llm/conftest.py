"""One thread for arithmetic that must repeat, and the pairs as tokens."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.train.llm.pairs import LONG, PAIRS
from train.llm.tokenise import Encoder, Sample


@pytest.fixture(autouse=True)
def deterministic() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def samples(tiny_llm: Path) -> list[Sample]:
    return Encoder(tiny_llm).samples(PAIRS, LONG)
