import pytest

from serve.front_door.circuit_breaker import CircuitBreaker, CircuitBreakerConfig


def test_it_opens_after_so_many_silences_in_a_row_and_lets_one_through_each_while() -> None:
    breaker = CircuitBreaker(CircuitBreakerConfig(failures=3, open_s=5))
    for at_s in range(2):
        breaker.record_failure(at_s)
        assert breaker.allows(at_s)
    breaker.record_failure(2)
    assert breaker.open
    assert [breaker.allows(at_s) for at_s in (3, 6.9, 7, 7.1, 11.9, 12)] == [
        False,
        False,
        True,
        False,
        False,
        True,
    ]


def test_an_answer_closes_it_and_forgets() -> None:
    breaker = CircuitBreaker(CircuitBreakerConfig(failures=2, open_s=5))
    breaker.record_failure(0)
    breaker.record_success()
    breaker.record_failure(1)
    assert breaker.allows(1)
    breaker.record_failure(2)
    assert not breaker.allows(3)
    assert breaker.allows(7)
    breaker.record_success()
    assert [breaker.allows(7), breaker.allows(7)] == [True, True]


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one failure"):
        CircuitBreakerConfig(failures=0)
