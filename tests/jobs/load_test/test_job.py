"""The arguments of a load test."""

import pytest

from jobs.load_test.job import Arguments


@pytest.mark.parametrize(
    ("wrong", "said"),
    [({"rate": 0.0}, "--rate"), ({"seconds": 0.5}, "--seconds"), ({"timeout_s": 0.0}, "--timeout_s")],
)
def test_an_impossible_load_is_refused(wrong: dict[str, float], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Arguments(**wrong)  # type: ignore[arg-type]
