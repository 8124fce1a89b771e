"""Originals as evaluation reads them."""

from collections.abc import Iterator

import numpy as np
import pytest

from data.sandbox.decoder import Decoder
from train.evaluation import originals, rejection_tests


@pytest.fixture(scope="module")
def decoder() -> Iterator[Decoder]:
    with Decoder() as one:
        yield one


def test_what_serving_checks_refuses_each_kind_and_lets_films_pass(
    decoder: Decoder, chests: list[np.ndarray]
) -> None:
    refuses = originals.refuser(decoder)
    found = rejection_tests.refusals(refuses, chests, [str(nth) for nth in range(len(chests))])
    shares = {one.name: one.estimate.value for one in found if one.estimate is not None}
    assert set(shares) == {"inverted", "lateral", "blank", "photograph"}
    assert {one.family for one in found} == {"refusal"}
    assert min(shares.values()) >= 0.95, shares
    assert not any(refuses(rejection_tests.encode_png(film), None) for film in chests)
