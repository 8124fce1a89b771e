import pytest

from serve.breaker import Breaker, BreakerConfig


def test_it_opens_after_so_many_silences_in_a_row_and_lets_one_through_each_while() -> None:
    breaker = Breaker(BreakerConfig(failures=3, open_s=5))
    for at_s in range(2):
        breaker.silent(at_s)
        assert breaker.allows(at_s)
    breaker.silent(2)
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
    breaker = Breaker(BreakerConfig(failures=2, open_s=5))
    breaker.silent(0)
    breaker.answered()
    breaker.silent(1)
    assert breaker.allows(1)
    breaker.silent(2)
    assert not breaker.allows(3)
    assert breaker.allows(7)
    breaker.answered()
    assert [breaker.allows(7), breaker.allows(7)] == [True, True]


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one failure"):
        BreakerConfig(failures=0)
