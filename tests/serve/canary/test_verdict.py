"""Each guardrail speaks on a stream with its defect, all are silent on a good one, and the order of harm holds."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from serve.canary.evidence import Evidence
from serve.canary.guardrails import Step
from serve.canary.observations import Observation, Requests
from serve.canary.simulation import GOOD, MIX, Quality, Traffic, draw, with_errors
from serve.canary.verdict import decide, worse_than_champion
from tests.serve.canary.evidence_of import CONFIG, LABELS, of, seen

USUAL = dict(zip(LABELS, MIX.tolist(), strict=True))
DRIFTED = tuple(np.roll(MIX, 3).tolist())


def test_a_canary_that_keeps_dying_is_rolled_back_and_one_death_is_not() -> None:
    evidence = seen(minutes=1)
    for n in range(14):
        dead = Observation(
            at=61.0, arm="canary", share=0.1, outcome="infrastructure", incident=f"replica {n}"
        )
        assert n > 9 or worse_than_champion(evidence) == []
        evidence.observe(dead, dead)
    assert worse_than_champion(evidence) == ["deaths"]


def test_both_versions_failing_alike_freeze_the_ramp_and_keep_the_canary() -> None:
    bad = with_errors(0.05)
    found = of(seen(bad, bad))
    assert (found.action, found.alert, found.retrain) == ("freeze", True, False)
    assert "errors where 1.0% are allowed" in found.why


def test_too_many_errors_for_five_minutes_roll_back_while_the_champion_is_below() -> None:
    evidence = seen(with_errors(0.03), rate=50, minutes=8)
    evidence.e_processes.max_R[:] = 0  # what the comparison had won, so that the absolute rule speaks alone
    found = of(evidence)
    assert found.action == "roll_back"
    assert found.why.startswith("for 5 minutes the canary had")


def test_the_absolute_rule_is_silent_for_few_requests_and_in_the_first_minutes() -> None:
    for rate, minutes in ((50.0, 4), (2.0, 8)):
        evidence = seen(with_errors(0.03), rate=rate, minutes=minutes)
        evidence.e_processes.max_R[:] = 0
        assert of(evidence).action == "wait"


def slow(share: float, ms: float, *, both: bool = False) -> Callable[[Requests], Requests]:
    """Make a share of the canary's (or all) requests take that long."""

    def change(requests: Requests) -> Requests:
        hit_N = (np.random.default_rng(9).random(len(requests)) < share) & (requests.canary_N | both)
        return replace(requests, latency_N=np.where(hit_N, ms, requests.latency_N))

    return change


@pytest.mark.parametrize(
    ("change", "action"),
    [
        (slow(0.04, 600.0), "roll_back"),
        (slow(0.04, 400.0), "hold"),
        (slow(0.04, 600.0, both=True), "freeze"),
        (slow(0.04, 400.0, both=True), "freeze"),
        (slow(0.004, 600.0), "promote"),
    ],
)
def test_the_p99_rolls_back_above_500_ms_and_stops_the_ramp_above_300(
    change: Callable[[Requests], Requests], action: str
) -> None:
    found = of(seen(rate=50, minutes=14, change=change))
    assert (found.action, found.alert) == (action, action != "promote")
    assert action == "promote" or "P99" in found.why
    assert found.p99_ms[0] is not None
    assert (found.p99_ms[0] > 300) == (action != "promote")


def test_drift_of_both_freezes_and_asks_for_training_and_drift_of_the_canary_rolls_back() -> None:
    config = replace(CONFIG, label_shares=USUAL)
    both = of(seen(replace(GOOD, mix=DRIFTED), replace(GOOD, mix=DRIFTED), config=config))
    assert (both.action, both.retrain) == ("freeze", True)
    canary = of(seen(replace(GOOD, mix=DRIFTED), config=config))
    assert (canary.action, canary.retrain) == ("roll_back", False)
    assert of(seen(config=config, minutes=15)).action == "promote"


def test_at_a_hundred_percent_the_champion_is_the_one_of_earlier_in_the_rollout() -> None:
    evidence = seen(rate=50, minutes=6)
    whole = Step(share=1.0)
    evidence.enter(whole, number=2, at=360.0)
    traffic = Traffic(requests_a_second=50, minutes=8, share=1.0)
    requests, _ = draw(traffic, with_errors(0.03), GOOD, np.random.default_rng(3))
    evidence.take_requests(replace(requests, at_N=requests.at_N + 360))
    assert worse_than_champion(evidence) == ["frozen_errors"]
    evidence.e_processes.max_R[evidence.e_processes.rows.index("frozen_errors")] = 0
    assert of(evidence, whole).action == "roll_back"
    assert "for 5 minutes" in of(evidence, whole).why


def test_a_canary_that_turns_bad_at_a_hundred_percent_is_out_at_once_where_the_champion_was_better() -> None:
    evidence, whole = seen(rate=50, minutes=6), Step(share=1.0)
    evidence.enter(whole, number=2, at=360.0)
    failing = [
        Observation(at=361.0, arm="canary", share=1.0, outcome="ok" if n % 5 else "model_error")
        for n in range(60)
    ]
    evidence.observe(*failing)
    assert worse_than_champion(evidence) == ["frozen_errors"]
    unknown = Evidence(CONFIG, started_at=0.0)
    unknown.enter(whole, number=1, at=0.0)
    unknown.observe(*failing)
    assert worse_than_champion(unknown) == []


def test_after_a_quick_ramp_gross_errors_at_a_hundred_percent_are_out_at_once() -> None:
    evidence, whole = (
        Evidence(CONFIG, started_at=0.0),
        Step(share=1.0, minutes=0.3, requests=50, non_inferior=False),
    )
    for n in range(400):
        evidence.observe(Observation(at=n / 6, arm="champion", share=0.1, outcome="ok"))
    evidence.enter(whole, number=1, at=70.0)
    failing = [
        Observation(at=70.0 + n / 12, arm="canary", share=1.0, outcome="model_error" if n % 2 else "ok")
        for n in range(30)
    ]
    evidence.observe(*failing)
    assert worse_than_champion(evidence) == ["gross_errors"]


def test_a_version_that_fails_with_all_of_the_traffic_is_not_promoted_though_nothing_compares() -> None:
    evidence, whole = (
        Evidence(CONFIG, started_at=0.0),
        Step(share=1.0, minutes=0.3, requests=50, non_inferior=False),
    )
    evidence.enter(whole, number=1, at=0.0)
    for n in range(60):
        evidence.observe(
            Observation(at=n / 2, arm="canary", share=1.0, outcome="model_error" if n % 20 == 0 else "ok")
        )
    told = of(evidence, whole)
    assert told.action == "wait"
    assert told.missing is not None
    assert told.missing.never == ("errors",)
    for n in range(60, 800):
        evidence.observe(Observation(at=n / 2, arm="canary", share=1.0, outcome="ok"))
    assert of(evidence, whole).action == "promote"


def test_at_a_hundred_percent_one_patient_s_failures_roll_nothing_back() -> None:
    evidence, whole = seen(rate=50, minutes=6), Step(share=1.0)
    evidence.enter(whole, number=2, at=360.0)
    failing = Observation(at=361.0, arm="canary", share=1.0, outcome="invalid_output", patient="a")
    evidence.observe(*[failing] * 200)
    assert worse_than_champion(evidence) == []


def test_at_a_hundred_percent_a_good_canary_ends_the_rollout() -> None:
    whole = Step(share=1.0, requests=100)
    assert of(seen(step=whole, minutes=1), whole).action == "wait"
    assert of(seen(step=whole, minutes=10), whole).action == "promote"


def test_a_step_that_the_evidence_does_not_know_is_refused() -> None:
    with pytest.raises(ValueError, match=r"of a step at 10\.0%, not at 50\.0%"):
        decide(seen(minutes=1), Step(share=0.5), 60.0)


@pytest.mark.parametrize("quality", [GOOD, with_errors(0.015)], ids=["good", "both fail"])
def test_of_two_hundred_good_canaries_hardly_one_in_twenty_is_rolled_back(quality: Quality) -> None:
    back = sum(
        of(seen(quality, quality, rate=10, minutes=10, seed=seed)).action == "roll_back"
        for seed in range(300)
    )
    assert back <= 10
