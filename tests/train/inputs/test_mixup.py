import numpy as np
import pytest

from train.inputs.mixup import blend

HASHES = [f"s{nth}" for nth in range(500)]


def test_each_image_is_a_partner_once_an_epoch() -> None:
    made = blend(HASHES, alpha=0.4, seed=1, epoch=3)
    assert sorted(made.partners_N) == list(range(500))
    assert (made.partners_N != np.arange(500)).mean() > 0.98


def test_a_blend_belongs_to_seed_epoch_and_sample_and_to_no_generator() -> None:
    first = blend(HASHES, alpha=0.4, seed=1, epoch=3)
    np.random.default_rng().random(3)
    again = blend(HASHES, alpha=0.4, seed=1, epoch=3)
    assert np.array_equal(first.partners_N, again.partners_N)
    assert np.array_equal(first.shares_N, again.shares_N)
    for other in (blend(HASHES, alpha=0.4, seed=1, epoch=4), blend(HASHES, alpha=0.4, seed=2, epoch=3)):
        assert not np.array_equal(first.partners_N, other.partners_N)
        assert not np.array_equal(first.shares_N, other.shares_N)


def test_the_order_in_which_samples_are_stored_changes_no_blend() -> None:
    made, turned = blend(HASHES, alpha=0.4, seed=1, epoch=3), blend(HASHES[::-1], alpha=0.4, seed=1, epoch=3)
    for nth in range(500):
        assert HASHES[made.partners_N[nth]] == HASHES[::-1][turned.partners_N[499 - nth]]
        assert made.shares_N[nth] == turned.shares_N[499 - nth]


@pytest.mark.parametrize("alpha", [0.2, 1.0])
def test_shares_follow_the_beta_distribution_from_the_middle_up(alpha: float) -> None:
    shares_N = blend(HASHES, alpha=alpha, seed=0, epoch=0).shares_N
    expected = np.random.default_rng(0).beta(alpha, alpha, 100_000)
    assert shares_N.min() >= 0.5
    assert shares_N.max() <= 1
    assert shares_N.mean() == pytest.approx(np.maximum(expected, 1 - expected).mean(), abs=0.02)


def test_without_mixup_each_image_is_itself() -> None:
    made = blend(HASHES, alpha=0, seed=0, epoch=0)
    assert not made.blends
    assert np.array_equal(made.partners_N, np.arange(500))
