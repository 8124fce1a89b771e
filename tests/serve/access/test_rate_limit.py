"""Token buckets: what a key may send, and when it may send again."""

import contextlib

import pytest

from serve.access.auth import Caller
from serve.access.rate_limit import Rate, RateConfig, RateLimiter
from serve.problems import Problem

CONFIG = RateConfig(client=Rate(per_s=2, burst=3), physician=Rate(per_s=1, burst=1))


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def sent(limiter: RateLimiter, caller: Caller, requests: int) -> int:
    """How many of so many requests are let through."""
    passed = 0
    for _ in range(requests):
        with contextlib.suppress(Problem):
            limiter.take(caller)
            passed += 1
    return passed


def test_a_burst_is_let_through_and_then_what_the_rate_allows() -> None:
    clock = Clock()
    limiter = RateLimiter(CONFIG, clock)
    caller = Caller(key_id="one", role="client")
    assert sent(limiter, caller, 10) == 3
    clock.now += 1
    assert sent(limiter, caller, 10) == 2
    clock.now += 1000
    assert sent(limiter, caller, 10) == 3


def test_a_refusal_says_when_to_come_again_and_costs_nothing() -> None:
    clock = Clock()
    limiter = RateLimiter(RateConfig(client=Rate(per_s=0.1, burst=1)), clock)
    caller = Caller(key_id="one", role="client")
    limiter.take(caller)
    for _ in range(5):
        with pytest.raises(Problem) as refusal:
            limiter.take(caller)
        assert refusal.value.headers["Retry-After"] == "10"
    clock.now += 10
    limiter.take(caller)


def test_each_key_has_its_own_bucket_of_its_roles_size() -> None:
    limiter = RateLimiter(CONFIG, Clock())
    assert sent(limiter, Caller(key_id="one", role="client"), 9) == 3
    assert sent(limiter, Caller(key_id="two", role="client"), 9) == 3
    assert sent(limiter, Caller(key_id="three", role="physician"), 9) == 1


@pytest.mark.parametrize("rate", [{"per_s": 0, "burst": 1}, {"per_s": 1, "burst": 0}])
def test_a_rate_that_lets_nothing_through_is_refused(rate: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="per_s > 0 and burst >= 1"):
        RateConfig.from_dict({"client": rate})


def test_the_machine_file_names_roles_only() -> None:
    assert RateConfig.from_dict({"operator": {"per_s": 5, "burst": 9}}).operator == Rate(per_s=5, burst=9)
    with pytest.raises(TypeError, match="visitor"):
        RateConfig.from_dict({"visitor": {"per_s": 5, "burst": 9}})
