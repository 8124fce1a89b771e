"""The simulation decides as production does, and its peers by the rules that they document."""

from dataclasses import replace

import numpy as np
import pytest

from jobs.bench import canary as simulation
from jobs.bench.canary import OURS, SCENARIOS, Row, check, config, ends, table, until_rollback
from jobs.runtime.entry import JobError
from serve.canary.evidence import Evidence
from serve.canary.guardrails import Step
from serve.canary.simulation import GOOD, Traffic, draw, with_errors
from serve.canary.verdict import alarm, decide

TRAFFIC = Traffic(requests_a_second=5, minutes=15)


def test_the_simulated_decisions_are_those_of_production_request_by_request() -> None:
    """Cut where the simulation looks, or looked at after each request by the verdict that the controller asks for."""
    step = Step(share=TRAFFIC.share)
    for seed, canary in enumerate((with_errors(0.05), with_errors(0.2), GOOD)):
        requests, pairs = draw(replace(TRAFFIC, minutes=4), canary, GOOD, np.random.default_rng(seed))
        simulated = until_rollback(requests, pairs, ends(requests, 4, closely=True))
        evidence, found = Evidence(config(), started_at=0.0), float("inf")
        evidence.enter(step, number=1, at=0.0)
        for nth in range(len(requests)):
            evidence.take_requests(requests[nth : nth + 1])
            evidence.take_pairs(pairs[pairs.at_N == requests.at_N[nth]])
            alarmed = alarm(evidence)
            if alarmed is not None and alarmed[0] == "roll_back":
                assert decide(evidence, step, 0.0).action == "roll_back"
                found = float(requests.canary_N[: nth + 1].sum())
                break
        assert found == simulated
        assert (found == float("inf")) == (canary == GOOD)


def test_looking_each_minute_overlooks_no_rollback() -> None:
    for seed in range(5):
        requests, pairs = draw(TRAFFIC, with_errors(0.03), GOOD, np.random.default_rng(seed))
        closely = until_rollback(requests, pairs, ends(requests, 15, closely=True))
        seldom = until_rollback(requests, pairs, ends(requests, 15, closely=False))
        assert closely <= seldom < float("inf")


def test_figures_that_break_what_is_promised_fail_the_benchmark() -> None:
    good, _, bad, _ = SCENARIOS
    inf = float("inf")
    kept = Row(scenario=good, rate=2)
    for name in kept.until:
        kept.until[name] = [inf] * 95 + [3.0] * 5
    caught = Row(scenario=bad, rate=2)
    for name in caught.until:
        caught.until[name] = [70.0, 120.0, inf]
    check([kept, caught])
    assert table([kept, caught]).count("\n") == 3
    kept.until[OURS][0] = 4.0
    with pytest.raises(JobError, match=r"0\.060 were rolled back falsely"):
        check([kept])
    caught.until[OURS] = [70.0, 121.0, inf]
    with pytest.raises(JobError, match="caught after 121"):
        check([caught])


def test_a_small_simulation_gives_a_figure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(simulation, "ROLLOUTS", 8)
    monkeypatch.setattr(simulation, "RATES", (2.0,))
    monkeypatch.setattr(simulation, "CAUGHT_WITHIN", {0.05: 200, 0.20: 40})  # eight say little about a median
    figure = simulation.canary_decisions()
    assert figure.name == "canary_decisions"
    assert figure.ours <= 0.05
    assert capsys.readouterr().out.count("| both") == 2
