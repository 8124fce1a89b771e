"""The gates of a load test, each shown failing; tests/end_to_end/test_chain.py fails one by a real delay."""

from dataclasses import replace

import pytest

from train.evaluation.gates import GateError, Gates, overall
from train.evaluation.load_gates import Load, judge

GATES = Gates()
GOOD = Load(requests=600, p99_ms=120.0, errors=0, throughput=9.99, wanted=10.0)


def test_a_version_that_is_quick_and_answers_all_passes() -> None:
    results = judge(GOOD, GATES, "staging")
    assert [one.name for one in results] == ["load_p99_ms", "load_errors", "load_throughput"]
    assert {one.verdict for one in results} == {"pass"}
    assert overall(results) == "pass"


@pytest.mark.parametrize(
    ("measured", "name", "said"),
    [
        (
            replace(GOOD, p99_ms=300.0),
            "load_p99_ms",
            "P99 300 ms at 10 requests a second, asked for is < 300",
        ),
        (replace(GOOD, errors=1), "load_errors", "1 of 600 requests failed"),
        (replace(GOOD, throughput=9.49), "load_throughput", "9.49 of 10 requests a second were answered"),
    ],
)
def test_each_bound_halts_alone(measured: Load, name: str, said: str) -> None:
    results = judge(measured, GATES, "staging")
    assert [one.name for one in results if one.halts] == [name]
    assert said in next(one.why for one in results if one.name == name)
    assert overall(results) == "fail"


def test_the_bounds_themselves_are_kept() -> None:
    at = Load(requests=1000, p99_ms=299.9, errors=1, throughput=9.5, wanted=10.0)
    assert overall(judge(at, GATES, "production")) == "pass"


def test_too_few_requests_show_nothing_and_halt() -> None:
    results = judge(replace(GOOD, requests=99), GATES, "staging")
    assert {one.verdict for one in results} == {"not evaluable"}
    assert all(one.halts for one in results)
    assert "100 are needed" in results[0].why


def test_an_environment_may_only_report_them() -> None:
    gates = Gates(reported={"development": ("load",)})
    slow = replace(GOOD, p99_ms=900.0)
    assert overall(judge(slow, gates, "development")) == "pass"
    assert overall(judge(slow, gates, "staging")) == "fail"


@pytest.mark.parametrize(
    "wrong", [{"load_p99_ms": 0.0}, {"load_requests": 0}, {"load_errors": 5.0}, {"load_throughput": 95.0}]
)
def test_an_impossible_bound_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(GateError, match=next(iter(wrong))):
        Gates(**wrong)  # type: ignore[arg-type]


def test_the_numbers_are_those_that_were_decided() -> None:
    assert (GATES.load_p99_ms, GATES.load_errors, GATES.load_throughput) == (300, 0.001, 0.95)
