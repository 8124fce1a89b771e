import numpy as np
import pytest

from train.metrics.champion_comparison import compare

COUNT = 600
GROUPS = [f"p{i // 2}" for i in range(COUNT)]


def right(share: float, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).uniform(size=COUNT) < share


def test_a_model_is_no_worse_than_itself() -> None:
    one = right(0.9, 0)
    found = compare(one, one, GROUPS, "3")
    assert found.difference is not None
    assert (found.champion, found.difference.value, found.bound) == ("3", 0.0, 0.0)
    assert (found.only_right, found.only_wrong) == (0, 0)


def test_the_same_images_are_compared_so_that_hard_ones_weigh_on_neither() -> None:
    """Both are wrong on the same third of the images: paired, a loss of two images in a hundred is certain."""
    hard = right(0.33, 0)
    champion, model = ~hard, ~hard & right(0.97, 1)
    found = compare(model, champion, GROUPS, "3")
    assert found.difference is not None
    assert found.difference.value == pytest.approx(model.mean() - champion.mean())
    assert found.difference.high < 0
    assert found.difference.high - found.difference.low < 0.03
    assert found.only_right == 0


def test_the_bound_is_one_sided_and_lies_above_the_intervals_end() -> None:
    found = compare(right(0.8, 0), right(0.8, 1), GROUPS, "3")
    assert found.difference is not None
    assert found.bound is not None
    assert found.difference.low < found.bound < found.difference.value
