"""Nobody gets rich by betting against the truth, and who bets against a lie does."""

import json

import numpy as np
import pytest

from serve.canary.e_process import (
    ABOVE,
    BELOW,
    BETS,
    MORE,
    MORE_OR_LESS,
    STAKES,
    EProcesses,
    difference_bets,
    mixture_weight,
    rate_bets,
    share_bets,
)

NEEDED = np.log(1 / 0.05)


def gain(won_NB: np.ndarray, probability_N: np.ndarray) -> np.ndarray:
    """What a bet wins on average, as a factor."""
    return (np.exp(won_NB) * probability_N[:, None]).sum(axis=0)


@pytest.mark.parametrize("ratios_B", [MORE, MORE_OR_LESS])
@pytest.mark.parametrize("share", [0.001, 0.1, 0.5, 0.9])
def test_a_bet_on_whose_event_it_is_wins_nothing_when_it_is_anybody_s(
    share: float, ratios_B: np.ndarray
) -> None:
    won_NB = share_bets(np.array([True, False]), np.full(2, share), ratios_B)
    assert gain(won_NB, np.array([share, 1 - share])) == pytest.approx(np.ones(BETS))
    fewer = share / 2
    assert (gain(won_NB, np.array([fewer, 1 - fewer])) <= 1).all() or ratios_B is MORE_OR_LESS


@pytest.mark.parametrize(("multiples_B", "harmless"), [(ABOVE, 0.5), (BELOW, 2.0)])
def test_a_bet_on_a_rate_wins_nothing_at_its_bound_and_loses_on_the_other_side(
    multiples_B: np.ndarray, harmless: float
) -> None:
    bad_N, good_N = np.array([1, 0]), np.array([0, 1])
    won_NB = rate_bets(bad_N, good_N, np.full(2, 0.01), multiples_B)
    assert gain(won_NB, np.array([0.01, 0.99])) == pytest.approx(np.ones(BETS))
    rate = 0.01 * harmless
    assert (gain(won_NB, np.array([rate, 1 - rate])) < 1).all()


def test_a_bet_on_a_difference_wins_nothing_at_its_tolerance_and_never_ruins() -> None:
    won_NB = difference_bets(np.array([-1.0, 1.0]), 0.05)
    assert np.isfinite(won_NB).all()
    assert len(STAKES) == BETS
    assert gain(won_NB, np.array([0.475, 0.525])) == pytest.approx(np.ones(BETS))


def test_wealth_is_one_at_the_start_and_the_stakes_of_all_minutes_are_no_more_than_one() -> None:
    wealth = EProcesses(["a"])
    assert wealth.max_log_e_value("a") == 0
    assert wealth.log_e_value("a") == pytest.approx(0)
    for minute, step in ((2, 0), (3, 1), (10, 1), (11, 4), (100_000, 9), (100_000, 10**6)):
        before = mixture_weight(wealth.minute, wealth.step)
        wealth.begin(minute=minute, step=step)
        assert before < mixture_weight(minute, step) <= 1
        assert wealth.log_e_value("a") == pytest.approx(0)


def test_of_a_thousand_that_bet_against_the_truth_hardly_more_than_one_in_twenty_ever_gets_rich() -> None:
    rng, rich = np.random.default_rng(0), 0
    for _ in range(1000):
        wealth = EProcesses(["a"])
        for minute in range(1, 31):
            wealth.begin(minute=minute)
            wealth.update("a", share_bets(rng.random(20) < 0.1, np.full(20, 0.1)))
        rich += wealth.max_log_e_value("a") >= NEEDED
    assert 0 < rich <= 65  # 50 are allowed, and 2 standard deviations of chance


def test_a_defect_that_comes_after_an_hour_is_found_within_a_few_events() -> None:
    rng, wealth = np.random.default_rng(1), EProcesses(["a"])
    for minute in range(1, 61):
        wealth.begin(minute=minute)
        wealth.update("a", share_bets(rng.random(5) < 0.1, np.full(5, 0.1)))
    assert wealth.max_log_e_value("a") < NEEDED
    wealth.begin(minute=61)
    wealth.update("a", share_bets(np.ones(8, bool), np.full(8, 0.1)))
    assert wealth.max_log_e_value("a") >= NEEDED


def wins(wealth: EProcesses) -> bool:
    """One more event of the canary."""
    wealth.update("a", share_bets(np.array([True]), np.full(1, 0.1)))
    return wealth.max_log_e_value("a") >= NEEDED


def test_a_defect_that_comes_with_a_step_is_found_sooner_than_one_that_comes_between() -> None:
    needed = {}
    for step in (None, 2):
        wealth = EProcesses(["a"])
        wealth.begin(step=1)
        for minute in range(1, 31):
            wealth.begin(minute=minute)
            wealth.update("a", share_bets(np.arange(10) == 0, np.full(10, 0.1)))
        wealth.begin(step=step)
        needed[step] = next(n for n in range(1, 20) if wins(wealth))
    assert needed[2] <= 3 < needed[None] <= 12


def test_events_one_by_one_and_all_at_once_win_the_same_to_the_last_bit() -> None:
    rng = np.random.default_rng(2)
    won_NB = share_bets(rng.random(500) < 0.2, np.full(500, 0.1))
    once, singly = EProcesses(["a"]), EProcesses(["a"])
    once.update("a", won_NB)
    for one_B in won_NB:
        singly.update("a", one_B[None])
    assert once.as_dict() == singly.as_dict()


def test_what_is_read_back_goes_on_with_the_same_bits() -> None:
    wealth = EProcesses(["a", "b"])
    wealth.update("b", share_bets(np.array([True, False, True]), np.full(3, 0.3)))
    again = EProcesses.from_dict(json.loads(json.dumps(wealth.as_dict())))
    for one in (wealth, again):
        one.begin(minute=3, step=1)
        one.update("b", share_bets(np.array([True]), np.full(1, 0.3)))
    assert again.as_dict() == wealth.as_dict()


def test_above_its_ceiling_wealth_is_given_away() -> None:
    wealth = EProcesses(["a"])
    for _ in range(50):
        wealth.update_rows(["a"], np.full((1, BETS), 1.0), np.array([5.0]))
    assert wealth.log_e_value("a") < 5.1
