"""Evidence is the same however the stream is cut, stored or shuffled, and a patient counts once in it."""

import json
from dataclasses import replace

import numpy as np
import pytest

from serve.canary.evidence import Evidence
from serve.canary.guardrails import Step
from serve.canary.observations import MirroredPair, Observation, Pairs, PhysicianFeedback, Requests
from serve.canary.simulation import GOOD, Quality, Traffic, draw
from serve.canary.verdict import decide
from tests.serve.canary.streams import CONFIG, LABELS, STEP, begun, failed


def stream(seed: int = 0, minutes: int = 12, canary: Quality = GOOD) -> tuple[Requests, Pairs]:
    traffic = Traffic(requests_a_second=5, minutes=minutes)
    return draw(traffic, canary, GOOD, np.random.default_rng(seed))


def observations(requests: Requests) -> list[Observation]:
    """The same requests as the controller hands them over."""
    outcomes = np.where(requests.error_N, "model_error", np.where(requests.invalid_N, "invalid_output", "ok"))
    return [
        Observation(
            at=float(requests.at_N[n]),
            arm="canary" if requests.canary_N[n] else "champion",
            share=0.1,
            outcome=outcomes[n],
            patient=f"patient {requests.patient_N[n]}",
            latency_ms=float(requests.latency_N[n]),
            abstained=bool(requests.abstained_N[n]),
            label=None if requests.label_N[n] < 0 else LABELS[requests.label_N[n]],
        )
        for n in range(len(requests))
    ]


def test_columns_and_single_observations_are_judged_the_same() -> None:
    requests, _ = stream(minutes=4, canary=replace(GOOD, errors=0.02))
    columns, singly = begun(), begun()
    named = Requests.of(observations(requests), LABELS)
    columns.take_requests(named)
    for one in observations(requests):
        singly.observe(one)
    assert columns.as_dict() == singly.as_dict()


def test_batches_cut_anywhere_and_stored_between_end_in_the_same_bits() -> None:
    requests, pairs = stream()
    whole = begun()
    for start in range(0, 720, 60):
        now = (requests.at_N >= start) & (requests.at_N < start + 60)
        whole.take_requests(requests[now])
        whole.take_pairs(pairs[(pairs.at_N >= start) & (pairs.at_N < start + 60)])
    cut = begun()
    for start in range(0, 720, 4):
        cut = Evidence.from_dict(json.loads(json.dumps(cut.as_dict())), CONFIG)
        cut.take_requests(requests[(requests.at_N >= start) & (requests.at_N < start + 4)])
        cut.take_pairs(pairs[(pairs.at_N >= start) & (pairs.at_N < start + 4)])
    assert json.dumps(cut.as_dict()) == json.dumps(whole.as_dict())
    assert decide(cut, STEP, 720.0) == decide(whole, STEP, 720.0)


def test_the_order_among_front_doors_changes_no_verdict() -> None:
    """Each of some doors is up to two seconds late."""
    requests, _ = stream(canary=replace(GOOD, errors=0.03))
    one, other = begun(), begun()
    shuffled = np.argsort(requests.at_N + np.random.default_rng(0).uniform(0, 2, len(requests)))
    for evidence, order in ((one, np.arange(len(requests))), (other, shuffled)):
        evidence.take_requests(requests[order])
    assert decide(one, STEP, 720.0).action == decide(other, STEP, 720.0).action == "roll_back"
    assert one.e_processes.max_log_e_value("errors") == pytest.approx(
        other.e_processes.max_log_e_value("errors"), abs=1.5
    )


def test_hundreds_of_failures_of_one_patient_count_once() -> None:
    evidence = begun()
    evidence.observe(*failed(500, patient="one who tries again and again"))
    assert evidence.events["errors"] == [1, 0]
    assert decide(evidence, STEP, 60.0).action == "wait"
    evidence.observe(*failed(1, patient="b"), *failed(1, patient="c"))
    assert decide(evidence, STEP, 60.0).action == "roll_back"


def test_requests_that_no_draw_could_have_sent_elsewhere_are_not_compared() -> None:
    evidence = begun()
    for share in (0.0, 1.0):
        evidence.observe(*[replace(one, share=share) for one in failed(50)])
    assert evidence.events["errors"] == [0, 0]


def test_who_was_met_while_only_images_were_mirrored_still_tells_of_drift_later() -> None:
    evidence = Evidence(CONFIG, started_at=0.0)
    evidence.enter(Step(share=0.0), number=1, at=0.0)
    people = [f"patient {n}" for n in range(60)]
    before = Observation(at=1.0, arm="champion", share=0.0, outcome="ok", label="a")
    evidence.observe(*[replace(before, patient=one) for one in people])
    evidence.enter(STEP, number=2, at=60.0)
    after = replace(before, at=61.0, share=0.1, arm="canary", label="b")
    evidence.observe(*[replace(after, patient=one) for one in people[:6]])
    won = evidence.e_processes.max_log_e_value("drift:b")
    assert won > np.log(100)
    evidence.observe(*[replace(after, patient=one) for one in people[:6]])
    assert evidence.e_processes.max_log_e_value("drift:b") == won


def test_what_is_slow_is_frozen_from_the_champion_s_first_requests() -> None:
    evidence = begun(replace(CONFIG, slow_ms=None))
    latencies = np.random.default_rng(0).uniform(10, 100, 300)
    ok = Observation(at=1.0, arm="champion", share=0.1, outcome="ok")
    evidence.observe(*[replace(ok, latency_ms=float(one)) for one in latencies])
    evidence.observe(*[replace(ok, arm="canary", latency_ms=9000.0)] * 300)
    evidence.observe(replace(ok, at=61.0))
    assert evidence.slow_ms == pytest.approx(95, rel=0.12)


def test_evidence_of_other_guardrails_is_refused() -> None:
    stored = begun().as_dict()
    with pytest.raises(ValueError, match="begin the rollout anew"):
        Evidence.from_dict(stored, replace(CONFIG, labels=("a", "b")))
    with pytest.raises(ValueError, match="started_at"):
        Evidence(CONFIG, started_at=float("inf"))
    with pytest.raises(ValueError, match="str is no observation"):
        begun().observe("hello")  # type: ignore[arg-type]


def test_every_kind_of_observation_may_come_in_one_batch() -> None:
    evidence = begun()
    evidence.observe(
        *failed(1),
        MirroredPair(at=2.0, patient="a", agree=False),
        PhysicianFeedback(at=3.0, arm="canary", share=0.1, agrees=False),
        PhysicianFeedback(at=3.0, arm="champion", share=0.1, agrees=True),
    )
    assert evidence.events["feedback"] == [1, 0]
    assert (evidence.step.pairs, evidence.step.disagreements) == (1, 1)
