"""The gates of a load test: is a version quick, sound and fast enough at a constant rate of requests?

The bounds are in `train.evaluation.gates.Gates` with all the others; `jobs.load_test` measures, and sets them to
those of the environment. Pure arithmetic: knows neither Ray nor torch, and nothing of HTTP.
"""

from dataclasses import dataclass

from train.evaluation.gates import GateResult, Gates


@dataclass(frozen=True, kw_only=True)
class Load:
    """The figures of a load test that a gate looks at."""

    requests: int
    """How many were due."""
    p99_ms: float
    """Of all requests, from when each was due; a failed one counts until it failed."""
    errors: int
    """Requests that the version did not answer, the champion's answers in its place among them."""
    throughput: float
    """Requests a second that the version answered."""
    wanted: float
    """Requests a second that were due."""


def judge(measured: Load, gates: Gates, environment: str) -> list[GateResult]:
    """Judge the three gates; each that does not pass halts, unless the environment only reports them."""
    errors = measured.errors / measured.requests if measured.requests else 1.0
    ratio = measured.throughput / measured.wanted
    at = f"at {measured.wanted:g} requests a second"
    judged = (
        (
            *("load_p99_ms", measured.p99_ms, gates.load_p99_ms, measured.p99_ms < gates.load_p99_ms),
            f"P99 {measured.p99_ms:.0f} ms {at}, asked for is < {gates.load_p99_ms:g}",
        ),
        (
            *("load_errors", errors, gates.load_errors, errors <= gates.load_errors),
            f"{measured.errors} of {measured.requests} requests failed ({errors:.2%}), allowed are "
            f"{gates.load_errors:.2%}",
        ),
        (
            *("load_throughput", ratio, gates.load_throughput, ratio >= gates.load_throughput),
            f"{measured.throughput:.2f} of {measured.wanted:g} requests a second were answered ({ratio:.1%}), asked "
            f"for are {gates.load_throughput:.1%}",
        ),
    )
    few = (
        f"{measured.requests} requests are too few, {gates.load_requests} are needed: test longer, or faster"
    )
    enough = measured.requests >= gates.load_requests
    return [
        GateResult(
            name=name,
            family="load",
            verdict=("pass" if held else "fail") if enough else "not evaluable",
            measured=value,
            threshold=threshold,
            images=measured.requests,
            groups=0,
            halts=not (enough and held) and "load" not in gates.reported.get(environment, ()),
            why=why if enough else few,
        )
        for name, value, threshold, held, why in judged
    ]
