"""What may be said about a margin, and how much more it takes to say it."""

from dataclasses import replace

import numpy as np
import pytest

from serve.noninferiority import Question, difference, log_evidence, missing, paired, rate, shown, upper_bound

ALPHA = 0.05


def of(canary_bad: int, champion_bad: int, total: int, share: float = 0.1) -> Question:
    return difference("errors", 0.01, share, canary_bad=canary_bad, champion_bad=champion_bad, total=total)


def test_nothing_is_shown_by_nothing_and_the_least_that_it_takes_is_told() -> None:
    question = of(0, 0, 0)
    assert not shown(question, ALPHA)
    assert upper_bound(question, ALPHA) == 1.0
    need = missing(question, ALPHA)
    assert need is not None
    assert shown(of(0, 0, need), ALPHA)
    assert not shown(of(0, 0, need - 2), ALPHA)


def test_a_canary_without_errors_is_shown_to_be_within_a_hundredth_by_some_hundred_requests_of_its_own() -> (
    None
):
    need = missing(of(0, 0, 0), ALPHA)
    assert need is not None
    assert 300 < need * 0.1 < 700


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5, 0.9])
def test_what_is_told_to_be_missing_is_what_is_missing(share: float) -> None:
    total = 100
    question = of(0, 0, total, share)
    more = missing(question, ALPHA)
    assert more
    grown = [round(n * (total + more) / total) for n in question.counts]
    assert log_evidence(replace(question, counts=tuple(grown))) == pytest.approx(np.log(20), rel=0.1)


def test_a_canary_that_is_worse_by_more_than_the_margin_is_never_shown() -> None:
    question = of(30, 9, 10_000)
    assert question.mean > 0.02
    assert not shown(question, ALPHA)
    assert missing(question, ALPHA) is None


def test_the_upper_bound_is_where_the_evidence_is_just_enough() -> None:
    question = of(2, 9, 10_000)
    bound = upper_bound(question, ALPHA)
    assert question.mean < bound < 0.01
    assert log_evidence(question, margin=bound) == pytest.approx(np.log(20), abs=1e-6)


def test_pairs_and_single_rates_are_asked_about_the_same_way() -> None:
    assert shown(paired("p", 0.05, canary_only=1, champion_only=1, total=400), ALPHA)
    assert not shown(paired("p", 0.05, canary_only=20, champion_only=0, total=400), ALPHA)
    assert shown(rate("r", 0.1, bad=5, total=400), ALPHA)
    assert not shown(rate("r", 0.1, bad=40, total=400), ALPHA)


def test_of_a_thousand_canaries_just_at_the_margin_hardly_one_in_twenty_is_ever_promoted() -> None:
    rng, promoted, share, looks = np.random.default_rng(0), 0, 0.1, range(1000, 10_001, 1000)
    for _ in range(1000):
        canary = rng.random(10_000) < share
        bad = rng.random(10_000) < np.where(canary, 0.02, 0.01)
        promoted += any(
            shown(of(int((canary & bad)[:n].sum()), int((~canary & bad)[:n].sum()), n), ALPHA) for n in looks
        )
    assert 0 < promoted <= 65


def test_a_margin_that_asks_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="margin of errors is 0"):
        difference("errors", 0.0, 0.1, canary_bad=0, champion_bad=0, total=0)
