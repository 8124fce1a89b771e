import numpy as np
import pytest

from train.metrics.bootstrap import Resampling, ratio, share


def test_the_interval_is_wider_when_images_come_from_fewer_patients() -> None:
    hits = np.repeat(np.array([True, True, True, False] * 5), 10)
    many = share(hits, [str(i) for i in range(200)])
    few = share(hits, [str(i // 10) for i in range(200)])
    assert many.value == few.value == 0.75
    assert few.high - few.low > 2 * (many.high - many.low)
    assert few.low < 0.75 < few.high
    assert (few.images, few.groups) == (200, 20)


def test_the_interval_is_that_of_the_binomial_when_every_image_is_its_own_patient() -> None:
    hits = np.arange(400) % 10 == 0
    found = share(hits, [str(i) for i in range(400)])
    half = 1.96 * np.sqrt(0.1 * 0.9 / 400)
    assert (found.low, found.high) == pytest.approx((0.1 - half, 0.1 + half), abs=0.006)


def test_the_interval_is_the_same_each_time_and_another_seed_gives_another() -> None:
    hits, groups = np.random.default_rng(0).normal(size=50), [str(i) for i in range(50)]
    assert share(hits, groups) == share(hits, groups)
    assert share(hits, groups) != share(hits, groups, seed=1)


def test_numbers_have_a_mean() -> None:
    found = share(np.array([-1.0, 0.0, 1.0, 1.0]), list("abcd"))
    assert found.value == 0.25
    assert -1 <= found.low < 0 < found.high <= 1


def test_a_share_of_some_images_counts_those_alone() -> None:
    resampling = Resampling(list("aabbcc"))
    among = np.array([True, True, True, False, False, False])
    found = resampling.share(np.array([True, False, True, True, True, True]), among)
    assert found is not None
    assert (found.value, found.images, found.groups) == (pytest.approx(2 / 3), 3, 2)
    assert resampling.share(among, ~among & among) is None


def test_sums_and_weights_tell_of_the_same_draws() -> None:
    values = np.arange(7.0)
    resampling = Resampling(list("aabcccd"), resamples=150)
    weights = np.concatenate(list(resampling.weights()))
    assert weights.shape == (150, 7)
    assert np.allclose(resampling.sums(values)[:, 0], weights @ values)
    assert set(np.unique(weights[:, 0] - weights[:, 1])) == {0.0}, "images of one patient are drawn together"


def test_nothing_of_nothing_is_no_number() -> None:
    assert np.isnan(ratio(np.array([0.0]), np.array([0.0]))[0])
