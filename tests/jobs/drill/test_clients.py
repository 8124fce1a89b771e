"""The clients of a drill."""

from jobs.drill.clients import Log


def test_latencies_are_of_what_was_answered() -> None:
    assert Log().latencies_ms() == {}
    answers = [{"ms": float(n)} for n in range(1, 102)]
    assert Log(answers=answers).latencies_ms() == {"p50": 51.0, "p95": 96.0, "p99": 100.0}
