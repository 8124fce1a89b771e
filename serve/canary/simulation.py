"""Simulated traffic of a rollout: requests of patients who come back, some of them hundreds of times.

What happens to requests of one patient is correlated: of the errors (and abstentions) half befall patients whose every
request has them, and four of five answers to a patient have the same label. One rollout is drawn from one seed.
"""

from dataclasses import dataclass, replace

import numpy as np

from serve.canary.guardrails import with_test
from serve.canary.observations import Pairs, Requests

MIX = np.array([0.35, 0.15, 0.1, 0.1, 0.08, 0.07, 0.05, 0.05, 0.03, 0.02])
"""How often each of ten labels is given."""
MEAN_REQUESTS = 1.5
HEAVY, HEAVY_REQUESTS = 1 / 2000, 300
"""One patient in two thousand sends three hundred requests."""
SLOW_MS = 100.0
"""The champion's 95th percentile."""
SPREAD = 0.5
"""Standard deviation of the logarithm of latencies."""


@dataclass(frozen=True, kw_only=True)
class Quality:
    """How good one version is; a guardrail's share of bad requests has its name."""

    errors: float = 0.001
    invalid_outputs: float = 0.0005
    abstentions: float = 0.05
    slower: float = 1.0
    """Factor on the latency."""
    mix: tuple[float, ...] = tuple(MIX.tolist())
    disagreements: float = 0.02
    """Share of mirrored images with another label than the champion's."""


@dataclass(frozen=True, kw_only=True)
class Traffic:
    requests_a_second: float
    minutes: int = 60
    share: float = 0.1
    """The canary's weight."""
    mirrored: float = 0.02
    """Share of the requests that both versions see."""


OF_ANSWERS = [row for row in with_test("share", "requests") if not row.failure]
"""Guardrails about answers, whose columns are drawn by their shares alone."""
GOOD = Quality()


def with_errors(errors: float) -> Quality:
    return replace(GOOD, errors=errors)


def draw(
    traffic: Traffic, canary: Quality, champion: Quality, rng: np.random.Generator
) -> tuple[Requests, Pairs]:
    """Draw all requests and pairs of one rollout, in order of time; it begins at 0."""
    patients, at_N = _visits(traffic, rng)
    people = int(patients.max(initial=0)) + 1
    canary_P = rng.random(people) < traffic.share
    canary_N = canary_P[patients]
    patient_N = rng.choice(2**31, size=people, replace=False, shuffle=False)[patients] + 1

    def draw_bad(name: str) -> np.ndarray:
        rate_N = np.where(canary_N, getattr(canary, name), getattr(champion, name)) / 2
        return (rng.random(people)[patients] < rate_N) | (rng.random(len(at_N)) < rate_N)

    error_N, invalid_N = draw_bad("errors"), draw_bad("invalid_outputs")
    invalid_N &= ~error_N
    slower_N = np.where(canary_N, canary.slower, champion.slower)
    # 1.645 standard deviations above the median lies the 95th percentile
    latency_N = SLOW_MS * slower_N * np.exp(SPREAD * (rng.standard_normal(len(at_N)) - 1.645))
    answered_N = ~error_N & ~invalid_N
    requests = Requests(
        at_N=at_N,
        canary_N=canary_N,
        share_N=np.full(len(at_N), traffic.share),
        patient_N=patient_N,
        error_N=error_N,
        invalid_N=invalid_N,
        **{row.column: draw_bad(row.name) & answered_N for row in OF_ANSWERS},
        incident_N=np.zeros(len(at_N), np.int64),
        late_N=np.zeros(len(at_N), bool),
        latency_N=latency_N,
        label_N=np.where(answered_N, _labels(canary, champion, canary_P, patients, rng), -1),
    )
    return requests, _pairs(traffic, canary, champion, requests, rng)


def _visits(traffic: Traffic, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw the patient and the time of each request: a patient's requests come some seconds after one another."""
    seconds = traffic.minutes * 60
    mean = MEAN_REQUESTS + HEAVY * (HEAVY_REQUESTS - MEAN_REQUESTS)
    people = rng.poisson(traffic.requests_a_second * seconds / mean)
    requests_P = rng.geometric(1 / MEAN_REQUESTS, people)
    requests_P[rng.random(people) < HEAVY] = HEAVY_REQUESTS
    patients = np.repeat(np.arange(people), requests_P)
    later_N = np.arange(len(patients)) - np.repeat(np.cumsum(requests_P) - requests_P, requests_P)
    at_N = np.repeat(rng.uniform(0, seconds, people), requests_P) + later_N * rng.exponential(
        5.0, len(patients)
    )
    order = np.argsort(at_N, kind="stable")
    order = order[at_N[order] < seconds]
    return patients[order], at_N[order]


def _labels(
    canary: Quality, champion: Quality, canary_P: np.ndarray, patients: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Draw labels: a patient's usual one four times of five."""

    def from_mix(canary_X: np.ndarray) -> np.ndarray:
        drawn_X = rng.random(len(canary_X))
        of_canary = np.searchsorted(np.cumsum(canary.mix), drawn_X)
        of_champion = np.searchsorted(np.cumsum(champion.mix), drawn_X)
        return np.minimum(np.where(canary_X, of_canary, of_champion), len(MIX) - 1)

    usual_N = from_mix(canary_P)[patients]
    return np.where(rng.random(len(patients)) < 0.8, usual_N, from_mix(canary_P[patients]))


def _pairs(
    traffic: Traffic, canary: Quality, champion: Quality, requests: Requests, rng: np.random.Generator
) -> Pairs:
    shown = np.flatnonzero(rng.random(len(requests)) < traffic.mirrored)
    canary_failed_N = rng.random(len(shown)) < canary.errors
    champion_failed_N = rng.random(len(shown)) < champion.errors
    answered_N = ~canary_failed_N & ~champion_failed_N
    return Pairs(
        at_N=requests.at_N[shown],
        patient_N=requests.patient_N[shown],
        canary_failed_N=canary_failed_N,
        champion_failed_N=champion_failed_N,
        disagree_N=(rng.random(len(shown)) < canary.disagreements) & answered_N,
    )
