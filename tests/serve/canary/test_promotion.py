"""A step is left upwards when the evidence suffices."""

from dataclasses import replace

import numpy as np

from serve.canary.evidence import Evidence
from serve.canary.guardrails import RAMP
from serve.canary.observations import Pairs
from serve.canary.simulation import GOOD, Traffic, draw, with_errors
from serve.canary.verdict import decide
from tests.serve.canary.evidence_of import CONFIG, STEP, of, seen


def test_a_good_canary_is_promoted_when_everything_is_shown_and_not_before() -> None:
    early = of(seen(minutes=2))
    assert early.action == "wait"
    assert early.missing is not None
    assert early.missing.requests > 0
    assert early.missing.minutes is not None
    assert f"{early.missing.requests} more canary requests" in early.why
    late = of(seen(minutes=15))
    assert (late.action, late.missing, late.alert) == ("promote", None, False)
    assert all(one.upper is not None and one.upper < one.margin for one in late.guardrails if one.margin)


def test_a_p99_above_300_ms_is_no_promotion_even_before_it_is_shown_to_last() -> None:
    evidence = seen(minutes=14)
    evidence.step.over_promote = int(evidence.step.requests_A[0])
    found = of(evidence)
    assert found.action == "wait"
    assert found.missing is not None
    assert found.missing.never == ("P99",)


def test_little_traffic_is_not_enough_evidence_and_says_how_much_is_missing() -> None:
    found = of(seen(rate=2, minutes=10))
    assert found.action == "wait"
    assert found.missing is not None
    assert found.missing.requests > 300
    assert found.missing.minutes is not None
    assert found.missing.minutes > 20
    nothing = Evidence(CONFIG, started_at=0.0)
    nothing.enter(STEP, number=1, at=0.0)
    none = decide(nothing, STEP, 600.0)
    assert none.missing is not None
    assert none.missing.minutes is None
    assert "never at the present rate" in none.why


def test_a_canary_that_is_worse_but_not_shown_to_be_is_not_promoted() -> None:
    found = of(seen(with_errors(0.012), rate=50, minutes=3, seed=4))
    assert found.action != "promote"


def test_every_step_of_the_ramp_can_be_left_by_a_good_canary() -> None:
    evidence = Evidence(CONFIG, started_at=0.0)
    at = 0.0
    for number, step in enumerate(RAMP, start=1):
        evidence.enter(step, number=number, at=at)
        traffic = Traffic(requests_a_second=50, minutes=10, share=step.share, mirrored=0.05)
        requests, pairs = draw(traffic, GOOD, GOOD, np.random.default_rng(number))
        assert of(evidence, step).action == "wait"
        evidence.take_requests(replace(requests, at_N=requests.at_N + at))
        evidence.take_pairs(Pairs(**{**vars(pairs), "at_N": pairs.at_N + at}))
        at += 600
        assert decide(evidence, step, at).action == "promote", step
