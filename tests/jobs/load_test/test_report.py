"""From records to figures."""

from pathlib import Path

import pytest

from jobs.load_test.arrivals import Plan, Sent
from jobs.load_test.report import reported

PLAN = Plan(
    api_url="http://x", keys=["secret"], version="7", images=str(Path()), rate=10, seconds=20, timeout_s=5
)


def sent(ms: list[float], errors: dict[int, str] | None = None) -> list[Sent]:
    return [
        Sent(due_s=nth / 10, late_ms=1.0, ms=one, error=(errors or {}).get(nth, ""))
        for nth, one in enumerate(ms)
    ]


def test_percentiles_are_values_that_were_seen_and_the_rarest_is_not_lost() -> None:
    found = reported(PLAN, sent([*[20.0] * 197, 100.0, 200.0, 900.0]))
    assert (found.p50_ms, found.p95_ms, found.p99_ms, found.max_ms) == (20.0, 20.0, 200.0, 900.0)
    assert found.p99_ms == reported(PLAN, sent([900.0, *[20.0] * 197, 100.0, 200.0])).p99_ms


def test_throughput_counts_what_was_answered_up_to_the_last_answer() -> None:
    assert reported(PLAN, sent([20.0] * 200)).throughput == 10
    assert reported(PLAN, sent([20.0] * 200, {3: "status 503", 4: "status 503"})).throughput == 9.9
    assert reported(PLAN, sent([20.0] * 199 + [5_100.0])).throughput == 8.0


def test_errors_are_counted_by_kind() -> None:
    found = reported(PLAN, sent([20.0] * 200, {0: "status 503", 1: "timeout", 2: "status 503"}))
    assert found.errors == {"status 503": 2, "timeout": 1}
    assert found.load.errors == 3


def test_nothing_sent_is_no_report() -> None:
    with pytest.raises(ValueError, match="raise the rate or the seconds"):
        reported(PLAN, [])


def test_a_plan_does_not_show_its_keys() -> None:
    assert "secret" not in repr(PLAN)
