"""How a drill judges what it saw: patients who went back and forth, shares that are not the weights, its table."""

from dataclasses import replace
from typing import Any

import pytest

from jobs.drill.table import Row, judged, table

GOOD = Row(
    case="promotion",
    state="promoted",
    went=True,
    seconds=90.0,
    out_s=None,
    requests=1000,
    raw_failures=3,
    lost=0,
    fallbacks=4,
    killed=2,
    flips=0,
    off_weight=0,
)


def request(patient: str, version: str, revision: int, canary: float) -> dict[str, Any]:
    weights = {"1": 1 - canary, "2": canary}
    return {"patient": patient, "assignment": {"version": version, "revision": revision, "weights": weights}}


def step(revision: int, canary: float, to_canary: int, of: int = 1000) -> list[dict[str, Any]]:
    """Patients 0.. are the canary's first."""
    return [request(str(n), "2" if n < to_canary else "1", revision, canary) for n in range(of)]


def test_a_ramp_up_and_a_rollback_are_no_flips() -> None:
    rows = step(1, 0.1, 100) + step(2, 0.5, 500) + step(3, 0.0, 0)
    assert judged(rows) == (0, 0)


def test_a_patient_who_leaves_a_version_whose_weight_stayed_is_a_flip() -> None:
    assert judged([request("a", "2", 1, 0.5), request("a", "1", 1, 0.5)])[0] == 1
    assert judged([request("a", "2", 1, 0.1), request("a", "1", 2, 0.5)])[0] == 1


def test_a_front_door_that_learns_a_moment_later_is_no_flip() -> None:
    rows = [
        request("a", "1", 1, 0.1),
        request("a", "2", 2, 0.5),
        request("a", "1", 1, 0.1),
        request("a", "2", 2, 0.5),
    ]
    assert judged(rows)[0] == 0


@pytest.mark.parametrize(("to_canary", "off"), [(100, 0), (77, 0), (124, 0), (70, 1), (132, 1)])
def test_the_share_of_patients_has_to_be_the_weight(to_canary: int, off: int) -> None:
    assert judged(step(1, 0.1, to_canary)) == (0, off)


def test_many_requests_of_one_patient_are_one_witness() -> None:
    assert judged(step(1, 0.1, 100) + [request("0", "2", 1, 0.1)] * 500) == (0, 0)


@pytest.mark.parametrize("wrong", [{"went": False}, {"lost": 1}, {"flips": 1}, {"off_weight": 1}])
def test_each_thing_that_should_not_be_makes_a_case_bad(wrong: dict[str, Any]) -> None:
    assert not GOOD.bad
    assert replace(GOOD, **wrong).bad


def test_the_table_has_a_line_for_each_case() -> None:
    lines = table([GOOD, replace(GOOD, case="cancelled")]).splitlines()
    assert len(lines) == 4
    assert {len(one.split("|")) for one in lines} == {14}
    assert lines[3].startswith("| cancelled | promoted | True |")
