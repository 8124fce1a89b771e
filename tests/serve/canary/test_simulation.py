"""Simulated streams of requests."""

import numpy as np
import pytest

from serve.canary.simulation import GOOD, Quality, Traffic, draw


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
