"""The page of the checks."""

from data.validation import checks_report, profile
from data.validation.checks import validate
from data.validation.config import ValidationConfig
from tests.data.validation.tables import baseline, subject, table

CONFIG = ValidationConfig()


def test_the_page_names_every_check_and_escapes_what_sources_write() -> None:
    frame = table(30)
    frame["view"] = "<script>alert(1)</script>"
    found, whole = validate(subject(frame, licenses={"<b>mine</b>": 30}), baseline(table()), CONFIG)
    report = {"version": "v1", "baseline": "before", "judged_at": "2026-01-01"}
    page = checks_report.page(report, found, whole, profile.of(table()))
    assert all(one.name in page for one in found)
    assert "<script>alert" not in page
    assert "<b>mine" not in page
    assert "may not be trained on" in page
    assert "<polyline" in page
    assert "http" not in page.replace("http://www.w3.org", "")
