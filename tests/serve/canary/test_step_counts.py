"""Counts of one step of a rollout."""

from dataclasses import replace

import pytest

from serve.canary.guardrails import Step
from serve.canary.observations import Observation
from serve.canary.verdict import decide
from tests.serve.canary.streams import STEP, begun, failed


def test_one_death_of_a_process_counts_once_and_not_as_the_model_s_error() -> None:
    evidence = begun()
    dead = [
        Observation(at=1.0, arm="canary", share=0.1, outcome="infrastructure", incident=f"replica {n // 40}")
        for n in range(80)
    ]
    evidence.observe(*dead)
    assert evidence.events["deaths"] == [2, 0]
    assert evidence.events["errors"] == [0, 0]
    assert evidence.step.requests_A.tolist() == [0, 0]
    assert decide(evidence, STEP, 60.0).action == "wait"


def test_a_step_counts_anew_and_what_was_won_stays() -> None:
    evidence = begun()
    evidence.observe(*failed(1, patient="a"), *failed(3, arm="champion", patient="b"))
    assert evidence.step.patients_A.tolist() == [1, 1]
    won = evidence.e_processes.max_log_e_value("errors")
    evidence.enter(Step(share=0.5), number=2, at=90.0)
    assert evidence.step.patients_A.tolist() == [0, 0]
    assert evidence.e_processes.max_log_e_value("errors") == won > 0
    evidence.observe(replace(failed(1, patient="a", at=91.0)[0], share=0.5))
    assert evidence.step.patients_A.tolist() == [1, 0]
    assert evidence.events["errors"] == [1, 1]
    with pytest.raises(ValueError, match="step 2 does not come after"):
        evidence.enter(STEP, number=2, at=91.0)


def test_requests_that_still_carry_other_weights_do_not_count_for_the_step() -> None:
    evidence = begun()
    evidence.observe(replace(failed(1)[0], share=0.01))
    assert evidence.step.patients_A.tolist() == [0, 0]
    assert evidence.events["errors"] == [1, 0]
