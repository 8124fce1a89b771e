"""Throughput and rollback times of the serving benchmarks."""

import pytest

from jobs.bench.figure import Figure
from jobs.bench.front_door import marked
from jobs.bench.load import Seen
from jobs.bench.serving import best_within, sent_after_s
from jobs.runtime.entry import JobError


def test_throughput_counts_only_loads_that_keep_the_bound_in_every_round() -> None:
    def ran(answers: int, slowest_ms: float) -> Seen:
        return Seen(seconds=1.0, latencies_ms=[10.0] * (answers - 2) + [slowest_ms] * 2)

    found = {4: [ran(40, 90.0), ran(44, 90.0)], 8: [ran(60, 90.0), ran(60, 310.0)]}
    assert best_within(found, 300.0) == 42.0
    with pytest.raises(JobError, match="best was 90"):
        best_within(found, 80.0)


def test_a_rollback_lasts_until_the_last_request_to_the_bad_version() -> None:
    sent = {"1": [10.0 + nth / 10 for nth in range(50)], "2": [9.0 + nth / 10 for nth in range(24)]}
    assert sent_after_s(sent, "2", 10.05) == pytest.approx(1.25)
    assert sent_after_s(sent, "2", 11.4) == 0.0
    figure = Figure.of("x", sent_after_s({**sent, "2": [*sent["2"], 12.1]}, "2", 10.05), 1.0, "a second", "s")
    assert "MISSES" in marked(figure, 2.0).peer_name


@pytest.mark.parametrize("decided_s", [9.2, 14.8])
def test_a_rollback_that_too_few_requests_saw_has_no_time(decided_s: float) -> None:
    sent = {"1": [10.0 + nth / 10 for nth in range(50)], "2": [9.0 + nth / 10 for nth in range(24)]}
    with pytest.raises(JobError, match="too few"):
        sent_after_s(sent, "2", decided_s)
