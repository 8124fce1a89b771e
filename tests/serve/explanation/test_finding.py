"""A finding: its facts, its prompt and its template."""

import pytest
from hypothesis import given, settings

from serve.explanation.checker import check
from serve.explanation.finding import Finding, FindingError, facts, prompt, template_text
from tests.serve.explanation.findings import BACTERIAL, any_finding


@settings(max_examples=150, deadline=None)
@given(any_finding())
def test_the_template_passes_the_check_for_every_finding(finding: Finding) -> None:
    assert check(template_text(finding), finding) == []


def test_the_prompt_holds_the_facts_and_changes_with_the_finding() -> None:
    other = Finding(
        label="normal", confidence=0.61, abstained=False, prediction_set=("normal",), triage="routine"
    )
    for finding in (BACTERIAL, other):
        for fact in facts(finding):
            assert fact.sentence in prompt(finding)
    assert prompt(BACTERIAL) != prompt(other)


def test_a_finding_survives_the_way_to_the_explainer() -> None:
    assert Finding.from_dict(BACTERIAL.as_dict()) == BACTERIAL


@pytest.mark.parametrize(
    ("confidence", "percent"), [(0.874, "87 %"), (0.9949, "99 %"), (0.9999, "more than 99 %")]
)
def test_the_number_is_whole_percent_and_never_claims_certainty(confidence: float, percent: str) -> None:
    values = {**BACTERIAL.as_dict(), "confidence": confidence}
    assert Finding.from_dict(values).percent == percent


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label": "cat"}, "no such class: cat"),
        ({"confidence": 1.2}, "from 0 to 1"),
        ({"triage": "never"}, "routine, soon, urgent"),
    ],
)
def test_an_impossible_finding_is_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(FindingError, match=message):
        Finding.from_dict({**BACTERIAL.as_dict(), **change})
