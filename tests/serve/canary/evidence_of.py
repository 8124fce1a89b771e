"""Evidence of simulated traffic, and the verdict on it."""

from collections.abc import Callable

import numpy as np

from serve.canary.evidence import Evidence
from serve.canary.guardrails import GuardrailConfig, Step
from serve.canary.observations import Observation, Requests
from serve.canary.simulation import GOOD, SLOW_MS, Quality, Traffic, draw
from serve.canary.verdict import Verdict, decide

LABELS = tuple("abcdefghij")


CONFIG = GuardrailConfig(labels=LABELS, slow_ms=SLOW_MS)


STEP = Step(share=0.1)


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
