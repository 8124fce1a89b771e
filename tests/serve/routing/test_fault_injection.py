"""Injected faults befall the version, and the share of requests, that they name."""

import random
from dataclasses import replace

import pytest

from serve.routing.fault_injection import Fault
from tests.serve.models import SNAPSHOT, Models, ask, sound


@pytest.mark.parametrize(
    ("fault", "outcome", "asked"),
    [
        (Fault(error_rate=1.0), "model_error", ["1"]),
        (Fault(delay_ms=60_000), "deadline", ["1"]),
        (Fault(crash=True), "infrastructure", ["1"]),
        (Fault(), "ok", ["2"]),
    ],
)
def test_an_injected_fault_befalls_its_version_alone(fault: Fault, outcome: str, asked: list[str]) -> None:
    models = Models(sound, sound)
    [(_, attempts)] = ask(models, snapshot=replace(SNAPSHOT, faults={"2": fault}))
    assert (attempts[0].outcome, models.asked) == (outcome, asked)


def test_so_many_requests_err_as_the_rate_says() -> None:
    draw = random.Random(0).random
    erred = sum(Fault(error_rate=0.2).errs(draw) for _ in range(10_000))
    assert abs(erred - 2000) < 4 * (10_000 * 0.2 * 0.8) ** 0.5
    assert not any(Fault().errs(draw) for _ in range(100))


def test_an_impossible_fault_is_refused() -> None:
    for wrong in ({"error_rate": 1.1}, {"error_rate": float("nan")}, {"delay_ms": -1.0}):
        with pytest.raises(ValueError, match="not between"):
            Fault(**wrong)
