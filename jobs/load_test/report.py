"""From what became of each request of a load test to its figures: percentiles, throughput, errors by kind. Pure."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from jobs.load_test.arrivals import Plan, Sent
from train.evaluation.load_gates import Load


@dataclass(frozen=True, kw_only=True)
class LoadReport:
    requests: int
    wanted: float
    """Requests a second that were due."""
    throughput: float
    """Requests a second that the version answered, up to the last answer."""
    p50_ms: float
    """From when a request was due, of all requests."""
    p95_ms: float
    p99_ms: float
    max_ms: float
    errors: dict[str, int]
    """By kind."""
    sender_late_p99_ms: float
    """By which the sender itself was late: where it is much, its machine was too busy to measure on."""

    @property
    def load(self) -> Load:
        return Load(
            requests=self.requests,
            p99_ms=self.p99_ms,
            errors=sum(self.errors.values()),
            throughput=self.throughput,
            wanted=self.wanted,
        )

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def reported(plan: Plan, sent: Sequence[Sent]) -> LoadReport:
    """Summarise what became of each request.

    Raises:
        ValueError: nothing was sent.
    """
    if not sent:
        raise ValueError("no request was due: raise the rate or the seconds")
    ms_N = np.array([request.ms for request in sent])
    answered = [request for request in sent if not request.error]
    took_s = max(plan.seconds, *(request.due_s + request.ms / 1000 for request in sent))
    # An upper percentile is one of the values that were seen, never a mean of two.
    p50, p95, p99 = np.percentile(ms_N, [50, 95, 99], method="higher")
    return LoadReport(
        requests=len(sent),
        wanted=plan.rate,
        throughput=round(len(answered) / took_s, 3),
        p50_ms=round(float(p50), 1),
        p95_ms=round(float(p95), 1),
        p99_ms=round(float(p99), 1),
        max_ms=round(float(ms_N.max()), 1),
        errors=dict(sorted(Counter(request.error for request in sent if request.error).items())),
        sender_late_p99_ms=round(
            float(np.percentile([request.late_ms for request in sent], 99, method="higher")), 1
        ),
    )
