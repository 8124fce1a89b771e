"""With the very checks that serving has, and without any."""

from collections.abc import Iterator

import numpy as np
import pytest

from data.imaging.preprocess import decode
from data.sandbox.decoder import Decoder
from data.synthetic.generator import SyntheticConfig, draw, subjects
from data.taxonomy import taxonomy
from train.evaluation import originals, rejection_tests


@pytest.fixture(scope="module")
def decoder() -> Iterator[Decoder]:
    with Decoder() as one:
        yield one


@pytest.fixture(scope="module")
def chests() -> list[np.ndarray]:
    config = SyntheticConfig(seed=5, images=40)
    return [
        decode(draw(config, one, 1, np.random.default_rng(one.seed))[0]).shown_HW
        for one in subjects(config)
        if taxonomy()[one.patient.label].region == "chest"
    ]


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


def test_without_checks_nothing_is_refused(chests: list[np.ndarray]) -> None:
    found = rejection_tests.refusals(
        lambda blob, view: False, chests, [str(nth) for nth in range(len(chests))]
    )
    assert {one.estimate.value for one in found if one.estimate is not None} == {0.0}
    assert len(found) == 4


def test_each_file_is_what_it_says() -> None:
    blanks, photographs = rejection_tests.blanks(), rejection_tests.photographs()
    assert (len(blanks), len(photographs)) == (40, 40)
    assert {blob[:4] for blob in blanks} == {b"\x89PNG"}
    assert {blob[:3] for blob in photographs} == {b"\xff\xd8\xff"}
    assert len(set(photographs)) == 40


def test_without_films_two_kinds_cannot_be_judged() -> None:
    found = {one.name: one for one in rejection_tests.refusals(lambda blob, view: True, [], [])}
    assert found["inverted"].estimate is None
    assert "original" in found["lateral"].why_not
    assert found["blank"].estimate is not None
