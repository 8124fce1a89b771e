"""Evidence and plans as they were stored by each version so far, and evidence replayed from the same requests."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from serve.canary.evidence import Evidence
from serve.canary.evidence_formats import FORMAT, FormatError, read_evidence
from serve.canary.guardrails import GUARDRAILS
from serve.canary.hypotheses import hypothesis_names
from serve.canary.observations import Observation, PhysicianFeedback
from serve.canary.simulation import GOOD, Quality, Traffic, draw, with_errors
from serve.canary.verdict import decide
from serve.control.plan import Plan

STORED = Path(__file__).with_name("stored")
MIX = (0.5, 0.3, 0.2)
GROSS = ("gross_errors", "champion_under_gross")


def stored(name: str) -> dict[str, Any]:
    """A plan, its evidence and the verdict on it, as a version of before wrote them."""
    read: dict[str, Any] = json.loads((STORED / f"{name}.json").read_text())
    return read


def replayed(plan: Plan) -> Evidence:
    """Evidence of the requests that `stored` is of."""

    def mixed(quality: Quality) -> Quality:
        return replace(quality, mix=MIX + (0.0,) * 7)

    evidence = Evidence(plan.guardrails, started_at=1000.0)
    evidence.enter(plan.steps[0], number=1, at=1000.0)
    traffic = Traffic(requests_a_second=2, minutes=4, share=0.5, mirrored=0.1)
    requests, pairs = draw(traffic, mixed(with_errors(0.05)), mixed(GOOD), np.random.default_rng(7))
    labels_N = np.minimum(requests.label_N, 2)
    evidence.take_requests(replace(requests, at_N=requests.at_N + 1000.0, label_N=labels_N))
    evidence.take_pairs(replace(pairs, at_N=pairs.at_N + 1000.0))
    death = Observation(
        at=1241.0, arm="canary", share=0.5, outcome="infrastructure", incident="i", patient="p"
    )
    feedback = PhysicianFeedback(at=1242.0, arm="canary", share=0.5, agrees=False, patient="p")
    evidence.observe(death, feedback)
    return evidence


def rounded(value: Any) -> Any:
    """Plain JSON with numbers of nine digits: processors differ in the last ones."""
    if isinstance(value, float):
        return float(f"{value:.9g}")
    if isinstance(value, dict):
        return {name: rounded(part) for name, part in value.items()}
    return [rounded(part) for part in value] if isinstance(value, list) else value


def known(evidence: dict[str, Any], before: dict[str, Any]) -> dict[str, Any]:
    """Evidence without guardrails that came after `before` was stored."""
    now: dict[str, Any] = json.loads(json.dumps(evidence))
    rows, faults = before["wealth"]["rows"], len(before["step"]["bad_AF"][0])
    now["wealth"]["rows"] = {name: row for name, row in now["wealth"]["rows"].items() if name in rows}
    now["events"] = {name: counts for name, counts in now["events"].items() if name in before["events"]}
    now["step"]["bad_AF"] = [row[:faults] for row in now["step"]["bad_AF"]]
    return now


def test_the_same_requests_give_the_evidence_and_the_verdict_that_they_gave_before() -> None:
    before = stored("before_formats")
    plan = Plan.from_dict(before["plan"])
    evidence = replayed(plan)
    now = known(evidence.as_dict(), before["evidence"])
    assert rounded(now) == {"format": FORMAT, **rounded(before["evidence"])}
    assert list(now["wealth"]["rows"]) == list(before["evidence"]["wealth"]["rows"])
    verdict = json.loads(json.dumps(asdict(decide(evidence, plan.steps[0], 1243.0))))
    names = {status["name"] for status in before["verdict"]["guardrails"]}
    verdict["guardrails"] = [status for status in verdict["guardrails"] if status["name"] in names]
    shared = {row.shares_budget_of for row in GUARDRAILS if row.name not in names}
    for status in (*verdict["guardrails"], *before["verdict"]["guardrails"]):
        if status["name"] in shared:  # a later guardrail has a part of its budget
            del status["needed"]
    assert rounded(verdict) == rounded(before["verdict"])


def test_evidence_without_format_goes_on_as_it_was() -> None:
    before = stored("before_formats")
    config = Plan.from_dict(before["plan"]).guardrails
    again = Evidence.from_dict(before["evidence"], config).as_dict()
    assert known(again, before["evidence"]) == {"format": FORMAT, **before["evidence"]}


def test_evidence_without_gross_errors_gets_them_as_if_nothing_had_been_seen() -> None:
    before = stored("before_gross_errors")
    assert not set(GROSS) & set(before["evidence"]["wealth"]["rows"])
    plan = Plan.from_dict(before["plan"])
    evidence = Evidence.from_dict(before["evidence"], plan.guardrails)
    for name in GROSS:
        assert evidence.e_processes.max_log_e_value(name) == 0
        assert evidence.e_processes.log_e_value(name) == pytest.approx(0)
    rows = before["evidence"]["wealth"]["rows"]
    assert {name: row for name, row in evidence.e_processes.as_dict()["rows"].items() if name in rows} == rows
    assert decide(evidence, plan.steps[0], 1243.0).why == before["verdict"]["why"]


def test_evidence_of_a_later_version_or_of_other_guardrails_is_refused() -> None:
    before = stored("before_formats")
    names = hypothesis_names(Plan.from_dict(before["plan"]).guardrails)
    with pytest.raises(FormatError, match="has format 2, and this version reads up to 1"):
        read_evidence({**before["evidence"], "format": 2}, names)
    rows = before["evidence"]["wealth"]["rows"]
    no_label = {name: row for name, row in rows.items() if name != "drift:a"}
    for other in ({}, {"errors": rows["errors"]}, no_label, {**rows, "luck": rows["errors"]}):
        wealth = {**before["evidence"]["wealth"], "rows": other}
        with pytest.raises(FormatError, match="begin the rollout anew"):
            read_evidence({**before["evidence"], "wealth": wealth}, names)
