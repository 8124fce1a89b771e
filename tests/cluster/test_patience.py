"""What may pass is waited for, up to the bound; everything else is raised at once."""

import time

import pytest

from cluster.objects import may_pass
from cluster.patience import patiently


class Service:
    """Away for some calls, then there."""

    def __init__(self, away: int, error: Exception | None = None) -> None:
        self.away, self.calls, self.error = away, 0, error or ConnectionError("refused")

    def __call__(self) -> int:
        self.calls += 1
        if self.calls <= self.away:
            raise self.error
        return self.calls


def test_a_service_that_comes_back_gives_its_answer() -> None:
    service = Service(away=3)
    assert patiently(service, patience_s=5, errors=(OSError,)) == 4


def test_without_patience_the_first_error_is_the_last() -> None:
    service = Service(away=1)
    with pytest.raises(ConnectionError, match="refused"):
        patiently(service, patience_s=0, errors=(OSError,))
    assert service.calls == 1


def test_a_service_that_stays_away_is_given_up_after_the_bound() -> None:
    service = Service(away=1000)
    started_at = time.monotonic()
    with pytest.raises(ConnectionError):
        patiently(service, patience_s=0.5, errors=(OSError,))
    assert time.monotonic() - started_at < 5
    assert service.calls > 2


def test_a_refusal_and_a_foreign_error_are_not_repeated() -> None:
    refused = Service(away=1, error=PermissionError("no"))
    with pytest.raises(PermissionError):
        patiently(refused, patience_s=5, errors=(OSError,), may_pass=may_pass)
    foreign = Service(away=1, error=ValueError("no"))
    with pytest.raises(ValueError, match="no"):
        patiently(foreign, patience_s=5, errors=(OSError,))
    assert (refused.calls, foreign.calls) == (1, 1)
