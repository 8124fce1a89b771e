"""The tables of a data set's page."""

from data.validation.report_tables import age_band


def test_ages_fall_into_bands() -> None:
    assert [age_band(years) for years in (0, 1.9, 11.99, 18, 64, 65, 90, None)] == [
        "0-1 years",
        "0-1 years",
        "2-11 years",
        "18-39 years",
        "40-64 years",
        "65 years and over",
        "65 years and over",
        "unknown",
    ]
