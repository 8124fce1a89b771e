"""The simulation decides as production does, and its peers by the rules that they document."""

from dataclasses import replace

import numpy as np
import pytest

from jobs.bench import canary as simulation
from jobs.bench.canary import OURS, SCENARIOS, Row, check, config, ends, table, until_rollback
from jobs.bench.canary_peers import Minutes, argo, flagger, peeking, requests_until
from jobs.runtime.entry import JobError
from serve.canary.evidence import Evidence
from serve.canary.guardrails import Step
from serve.canary.observations import Observation, Requests
from serve.canary.simulation import GOOD, Quality, Traffic, draw, with_errors
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


@pytest.mark.parametrize("rate", [0.015, 0.2])
def test_streams_have_the_rates_they_were_asked_for_in_both_arms(rate: float) -> None:
    quality = Quality(errors=rate, abstentions=0.1)
    requests, pairs = draw(
        Traffic(requests_a_second=50, minutes=30), quality, quality, np.random.default_rng(1)
    )
    assert len(requests) == pytest.approx(50 * 1800, rel=0.1)
    assert requests.canary_N.mean() == pytest.approx(0.1, abs=0.02)
    assert requests.error_N.mean() == pytest.approx(rate, rel=0.2)
    assert requests.abstained_N.mean() == pytest.approx(0.1 * (1 - rate), rel=0.2)
    assert (requests.latency_N > 100).mean() == pytest.approx(0.05, abs=0.01)
    assert pairs.disagree_N.mean() == pytest.approx(0.02 * (1 - rate) ** 2, abs=0.01)
    assert (np.diff(requests.at_N) >= 0).all()


def test_some_patients_send_hundreds_and_each_has_one_arm() -> None:
    requests, _ = draw(Traffic(requests_a_second=50, minutes=30), GOOD, GOOD, np.random.default_rng(2))
    people, counts = np.unique(requests.patient_N, return_counts=True)
    assert counts.max() > 200
    heaviest = requests.canary_N[requests.patient_N == people[counts.argmax()]]
    assert heaviest.all() or not heaviest.any()


def of_minutes(failed: list[int], total: int = 100) -> Minutes:
    """A minute-by-minute stream with that many failed canary requests in each, and a champion without any."""
    requests = [
        Observation(
            at=minute * 60.0,
            arm=arm,  # type: ignore[arg-type]
            share=0.5,
            outcome="model_error" if arm == "canary" and nth < failed[minute] else "ok",
            latency_ms=0.0,
        )
        for minute in range(len(failed))
        for arm in ("canary", "champion")
        for nth in range(total)
    ]
    return Minutes(Requests.of(requests, ()), len(failed))


def test_flagger_rolls_back_at_the_fifth_minute_below_99_percent() -> None:
    assert flagger(of_minutes([2, 0, 2, 2, 1, 2, 2, 2])) == 7
    assert flagger(of_minutes([1, 2, 2, 2, 2, 0])) is None


def test_argo_rolls_back_at_the_fourth_interval_below_99_percent() -> None:
    bad, good = [0, 0, 10, 0, 0], [5, 0, 0, 0, 0]
    assert argo(of_minutes([*bad, *bad, *good, *bad, *bad])) == 25
    assert argo(of_minutes([*bad, *bad, *good, *bad, *good])) is None


def test_the_z_test_rolls_back_at_the_first_significant_minute() -> None:
    assert peeking(of_minutes([1, 1, 2, 0])) == 3
    assert peeking(of_minutes([0, 0])) is None
    seen = of_minutes([1, 1, 2, 0])
    assert requests_until(seen, 3) == 300
    assert requests_until(seen, None) == float("inf")


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
