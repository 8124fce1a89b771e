"""What may be said about a margin, and how much more it takes to say it."""

from dataclasses import replace

import numpy as np
import pytest

from serve.canary.noninferiority import (
    NonInferiorityTest,
    difference,
    is_shown,
    log_evidence,
    paired,
    rate,
    remaining_sample_size,
    upper_bound,
)

ALPHA = 0.05


def of(canary_bad: int, champion_bad: int, total: int, share: float = 0.1) -> NonInferiorityTest:
    return difference("errors", 0.01, share, canary_bad=canary_bad, champion_bad=champion_bad, total=total)


def test_nothing_is_shown_by_nothing_and_the_least_that_it_takes_is_told() -> None:
    test = of(0, 0, 0)
    assert not is_shown(test, ALPHA)
    assert upper_bound(test, ALPHA) == 1.0
    need = remaining_sample_size(test, ALPHA)
    assert need is not None
    assert is_shown(of(0, 0, need), ALPHA)
    assert not is_shown(of(0, 0, need - 2), ALPHA)


def test_a_canary_without_errors_is_shown_to_be_within_a_hundredth_by_some_hundred_requests_of_its_own() -> (
    None
):
    need = remaining_sample_size(of(0, 0, 0), ALPHA)
    assert need is not None
    assert 300 < need * 0.1 < 700


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5, 0.9])
def test_what_is_told_to_be_missing_is_what_is_remaining_sample_size(share: float) -> None:
    total = 100
    test = of(0, 0, total, share)
    more = remaining_sample_size(test, ALPHA)
    assert more
    grown = [round(n * (total + more) / total) for n in test.counts]
    assert log_evidence(replace(test, counts=tuple(grown))) == pytest.approx(np.log(20), rel=0.1)


def test_a_canary_that_is_worse_by_more_than_the_margin_is_never_is_shown() -> None:
    test = of(30, 9, 10_000)
    assert test.mean > 0.02
    assert not is_shown(test, ALPHA)
    assert remaining_sample_size(test, ALPHA) is None


def test_the_upper_bound_is_where_the_evidence_is_just_enough() -> None:
    test = of(2, 9, 10_000)
    bound = upper_bound(test, ALPHA)
    assert test.mean < bound < 0.01
    assert log_evidence(test, margin=bound) == pytest.approx(np.log(20), abs=1e-6)


def test_pairs_and_single_rates_are_asked_about_the_same_way() -> None:
    assert is_shown(paired("p", 0.05, canary_only=1, champion_only=1, total=400), ALPHA)
    assert not is_shown(paired("p", 0.05, canary_only=20, champion_only=0, total=400), ALPHA)
    assert is_shown(rate("r", 0.1, bad=5, total=400), ALPHA)
    assert not is_shown(rate("r", 0.1, bad=40, total=400), ALPHA)


def test_of_a_thousand_canaries_just_at_the_margin_hardly_one_in_twenty_is_ever_promoted() -> None:
    rng, promoted, share, looks = np.random.default_rng(0), 0, 0.1, range(1000, 10_001, 1000)
    for _ in range(1000):
        canary = rng.random(10_000) < share
        bad = rng.random(10_000) < np.where(canary, 0.02, 0.01)
        promoted += any(
            is_shown(of(int((canary & bad)[:n].sum()), int((~canary & bad)[:n].sum()), n), ALPHA)
            for n in looks
        )
    assert 0 < promoted <= 65


def test_a_margin_that_asks_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="margin of errors is 0"):
        difference("errors", 0.0, 0.1, canary_bad=0, champion_bad=0, total=0)
