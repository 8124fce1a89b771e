"""The profile of a table: what a later batch is compared with."""

from dataclasses import asdict

import pytest

from data.validation import profile
from tests.data.validation.tables import table


def test_a_profile_survives_being_written_down() -> None:
    whole = profile.of(table())
    assert profile.Profile(**asdict(whole)) == whole
    assert whole.people({"a"}) == pytest.approx(120)


@pytest.mark.parametrize(
    ("years", "band"), [(None, "unknown"), (0.5, "0-5"), (6, "6-17"), (64.9, "40-64"), (90, "65+")]
)
def test_ages_are_compared_in_bands(years: float | None, band: str) -> None:
    assert profile.age_band(years) == band
