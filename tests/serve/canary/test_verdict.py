"""Each guardrail speaks on a stream with its defect, all are silent on a good one, and the order of harm holds."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from serve.canary.evidence import Evidence
from serve.canary.guardrails import RAMP, GuardrailConfig, Step
from serve.canary.observations import MirroredPair, Observation, Pairs, PhysicianFeedback, Requests
from serve.canary.simulation import GOOD, MIX, SLOW_MS, Quality, Traffic, draw, with_errors
from serve.canary.verdict import Verdict, decide, worse_than_champion

LABELS = tuple("abcdefghij")
CONFIG = GuardrailConfig(labels=LABELS, slow_ms=SLOW_MS)
USUAL = dict(zip(LABELS, MIX.tolist(), strict=True))
STEP = Step(share=0.1)
DRIFTED = tuple(np.roll(MIX, 3).tolist())


def seen(
    canary: Quality = GOOD,
    champion: Quality = GOOD,
    *,
    config: GuardrailConfig = CONFIG,
    step: Step = STEP,
    rate: float = 20,
    minutes: int = 10,
    seed: int = 0,
    change: Callable[[Requests], Requests] = lambda requests: requests,
) -> Evidence:
    """The evidence of one simulated step."""
    evidence = Evidence(config, started_at=0.0)
    evidence.enter(step, number=1, at=0.0)
    traffic = Traffic(requests_a_second=rate, minutes=minutes, share=step.share)
    requests, pairs = draw(traffic, canary, champion, np.random.default_rng(seed))
    evidence.take_requests(change(requests))
    evidence.take_pairs(pairs)
    evidence.observe(Observation(at=60.0 * minutes, arm="champion", share=step.share, outcome="ok"))
    return evidence


def of(evidence: Evidence, step: Step = STEP) -> Verdict:
    return decide(evidence, step, evidence.clock)


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


@pytest.mark.parametrize(
    ("canary", "guardrail"),
    [
        (with_errors(0.05), "errors"),
        (replace(GOOD, invalid_outputs=0.05), "invalid_outputs"),
        (replace(GOOD, abstentions=0.25), "abstentions"),
        (replace(GOOD, slower=2.5), "latency"),
        (replace(GOOD, mix=DRIFTED), "drift"),
        (replace(GOOD, disagreements=0.3), "disagreement"),
    ],
)
def test_each_guardrail_speaks_on_its_defect_and_no_other_one_does(canary: Quality, guardrail: str) -> None:
    evidence = seen(canary)
    assert worse_than_champion(evidence) == [guardrail]
    found = of(evidence)
    assert (found.action, found.alert) == ("roll_back", True)
    assert guardrail in found.why
    figure = next(one for one in found.guardrails if one.name == guardrail)
    assert figure.fired
    assert worse_than_champion(seen()) == []


def test_mirrored_errors_speak_where_there_is_no_concurrent_traffic() -> None:
    for share in (0.0, 1.0):
        evidence = Evidence(CONFIG, started_at=0.0)
        evidence.enter(Step(share=share), number=1, at=0.0)
        evidence.observe(
            *[MirroredPair(at=1.0, canary_failed=True)] * 4, *[MirroredPair(at=1.0, agree=True)] * 100
        )
        assert worse_than_champion(evidence) == []
        evidence.observe(*[MirroredPair(at=2.0, canary_failed=True)] * 8)
        assert worse_than_champion(evidence) == ["mirrored_errors"]


def test_physicians_who_correct_the_canary_roll_it_back() -> None:
    evidence = seen(minutes=1)
    told = [PhysicianFeedback(at=90.0, arm="champion", share=0.1, agrees=n > 3) for n in range(90)]
    told += [PhysicianFeedback(at=90.0, arm="canary", share=0.1, agrees=n > 6) for n in range(10)]
    evidence.observe(*told)
    assert worse_than_champion(evidence) == ["feedback"]


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


def test_a_p99_above_300_ms_is_no_promotion_even_before_it_is_shown_to_last() -> None:
    evidence = seen(minutes=14)
    evidence.step.over_promote = int(evidence.step.requests_A[0])
    found = of(evidence)
    assert found.action == "wait"
    assert found.missing is not None
    assert found.missing.never == ("P99",)


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


def test_a_step_that_the_evidence_does_not_know_is_refused() -> None:
    with pytest.raises(ValueError, match=r"of a step at 10\.0%, not at 50\.0%"):
        decide(seen(minutes=1), Step(share=0.5), 60.0)


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


@pytest.mark.parametrize("quality", [GOOD, with_errors(0.015)], ids=["good", "both fail"])
def test_of_two_hundred_good_canaries_hardly_one_in_twenty_is_rolled_back(quality: Quality) -> None:
    back = sum(
        of(seen(quality, quality, rate=10, minutes=10, seed=seed)).action == "roll_back"
        for seed in range(300)
    )
    assert back <= 10
