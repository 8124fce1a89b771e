"""With the very checks that serving has, and without any."""

import numpy as np

from train.evaluation import rejection_tests


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
