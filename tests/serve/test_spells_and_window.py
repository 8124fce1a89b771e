"""Latency by spells, the last minutes, and quantiles from a histogram."""

import numpy as np
import pytest

from serve.latencies import Latencies
from serve.spells import Spells
from serve.window import CANARY, CHAMPION, Window


def test_a_spell_gives_one_difference_however_many_requests_it_had() -> None:
    spells = Spells()
    number_N = np.array([0, 0, 0, 0, 1, 1, 3])
    canary_N = np.array([True, True, False, False, False, False, True])
    slow_N = np.array([True, True, True, False, True, True, False])
    assert spells.add(number_N, canary_N, slow_N).tolist() == [0.5]  # spell 1 had no canary, spell 3 is open
    assert spells.add(np.array([3]), np.array([False]), np.array([True])).tolist() == []
    assert spells.close().tolist() == [-1.0]
    assert spells.close().tolist() == []


def test_spells_cut_anywhere_are_the_same_spells() -> None:
    rng = np.random.default_rng(0)
    number_N = np.sort(rng.integers(0, 30, 400))
    canary_N, slow_N = rng.random(400) < 0.2, rng.random(400) < 0.1
    whole, cut, found = Spells(), Spells(), []
    for part in np.array_split(np.arange(400), 37):
        found += cut.add(number_N[part], canary_N[part], slow_N[part]).tolist()
    assert whole.add(number_N, canary_N, slow_N).tolist() == found
    assert whole.as_dict() == cut.as_dict() == Spells.from_dict(whole.as_dict()).as_dict()


def minute(requests: int, errors: int) -> np.ndarray:
    return np.array([[requests, errors, 0, 0], [9 * requests, 0, 0, 0]])


def test_one_burst_is_not_five_minutes() -> None:
    window = Window(5)
    for errors in (0, 0, 20, 0, 0):
        window.close(minute(100, errors), skipped=0)
    assert window.full
    assert window.share(CANARY, "errors") == 0.04
    assert not window.sustained(CANARY, "errors", 0.01)
    window.close(minute(100, 8), skipped=0)
    assert window.sustained(CANARY, "errors", 0.01)
    assert not window.sustained(CHAMPION, "errors", 0.01)


def test_minutes_without_requests_push_old_ones_out() -> None:
    window = Window(5)
    window.close(minute(100, 5), skipped=4)
    assert window.requests(CANARY) == 100
    window.close(minute(10, 0), skipped=1000)
    assert window.requests(CANARY) == 0
    assert not window.sustained(CANARY, "errors", 0.01)


def test_quantiles_are_within_a_tenth() -> None:
    latencies = Latencies()
    values = np.random.default_rng(0).lognormal(5, 1, 5000)
    latencies.add(np.append(values, np.nan))
    assert latencies.total == 5000
    for q in (0.5, 0.95, 0.99):
        assert latencies.quantile(q) == pytest.approx(np.quantile(values, q), rel=0.1)
    assert Latencies().quantile(0.5) is None
