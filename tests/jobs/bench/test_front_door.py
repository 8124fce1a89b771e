"""The arithmetic of the serving benchmarks, and their client on a real server."""

import pytest

from jobs.bench.figure import Figure
from jobs.bench.front_door import cost_ms, marked
from jobs.runtime.throwaway_platform import Watch


def test_a_request_costs_what_was_used_beyond_the_idle_share() -> None:
    watch = Watch(lambda: [], cpu_s=3.0, wall_s=10.0)
    assert cost_ms(watch, 0.1, 1000) == pytest.approx(2.0)


def test_a_figure_above_its_mark_says_so_and_one_at_it_does_not() -> None:
    above, at = (Figure.of("x", ours, 1.0, "peer", "ms") for ours in (0.81, 0.8))
    assert "MISSES its mark of 0.8" in marked(above, 0.8).peer_name
    assert marked(at, 0.8) == at


def test_too_little_throughput_says_so() -> None:
    below, at = (Figure.of("x", ours, 1.0, "peer", "requests/s") for ours in (0.99, 1.0))
    assert "MISSES its mark of 1" in marked(below, at_least=1.0).peer_name
    assert marked(at, at_least=1.0) == at
