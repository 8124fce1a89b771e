"""The peers decide by the rules that they document."""

from jobs.bench.canary_peers import Minutes, argo, flagger, peeking, requests_until
from serve.canary.observations import Observation, Requests


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
