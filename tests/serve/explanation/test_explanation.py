"""From a model's stream to a text for a patient: what is passed on, completed, replaced."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import given, settings

from serve.explanation.checker import check
from serve.explanation.explanation import DISCLAIMER, Event, Explanation, explain, template_explanation
from serve.explanation.finding import Finding, facts, template_text
from tests.serve.explanation.findings import BACTERIAL, any_finding


def run(text: str, finding: Finding = BACTERIAL, piece: int = 3) -> tuple[list[Event], Explanation]:
    pieces = iter([text[at : at + piece] for at in range(0, len(text), piece)])
    events = list(explain(finding, pieces, model="tiny"))
    assert [event.kind for event in events].count("done") == 1
    made = events[-1].explanation
    assert made is not None
    return events, made


@settings(max_examples=50, deadline=None)
@given(any_finding())
def test_every_fact_can_be_left_to_the_template(finding: Finding) -> None:
    told = facts(finding)
    for one in told:
        if one.required and one.key != "finding":
            text = " ".join(fact.sentence for fact in told if fact.key != one.key)
            if one.key == "number" and finding.others:
                assert check(f"{text} {one.alone}", finding) == []
            _, made = run(text, finding)
            assert (made.fallback, made.completed) == (False, (one.key,))


@settings(max_examples=50, deadline=None)
@given(any_finding(), any_finding())
def test_whatever_a_model_says_the_delivered_text_passes_the_check(told: Finding, finding: Finding) -> None:
    _, made = run(template_text(told), finding)
    assert check(made.text, finding) == []


@pytest.mark.parametrize("piece", [1, 7, 1000])
def test_a_good_text_is_passed_on_sentence_by_sentence(piece: int) -> None:
    text = template_text(BACTERIAL).replace("87 %", "87%")
    events, made = run(text, piece=piece)
    assert [event.kind for event in events] == ["sentence"] * 5 + ["done"]
    assert " ".join(event.text for event in events[:-1]) == made.text == text
    assert made == Explanation(text=text, model="tiny", fallback=False)


def test_a_sentence_is_shown_before_the_model_has_finished() -> None:
    def endless() -> Iterator[str]:
        yield f"{facts(BACTERIAL)[0].sentence} It"
        pytest.fail("asked for more before the first sentence was passed on")

    assert next(explain(BACTERIAL, endless(), model="tiny")).kind == "sentence"


def test_an_inverted_sentence_is_never_shown_and_the_template_takes_over() -> None:
    events, made = run(f"{facts(BACTERIAL)[0].sentence} The software did not detect pneumonia. More.")
    assert [event.kind for event in events] == ["sentence", "replace", "done"]
    assert events[1].text == made.text == template_text(BACTERIAL)
    assert (made.fallback, made.model) == (True, "template")
    assert "polarity" in made.problems


def test_a_missing_fact_is_added_in_the_words_of_the_template_and_listed() -> None:
    text = template_text(BACTERIAL).replace(" It is 87 % sure of this.", "")
    events, made = run(text)
    assert made.text == f"{text} The software is 87 % sure of bacterial pneumonia."
    assert (made.completed, made.fallback) == (("number",), False)
    assert events[-2].text == "The software is 87 % sure of bacterial pneumonia."


def test_a_text_that_says_too_little_is_replaced() -> None:
    _, made = run(facts(BACTERIAL)[0].sentence)
    assert made.fallback
    assert set(made.problems) == {"missing_number", "missing_alternatives", "missing_doctor"}


@pytest.mark.parametrize("text", ["", "   ", "The software saw signs of", "\n\n"])
def test_a_model_that_says_nothing_whole_is_replaced(text: str) -> None:
    _, made = run(text)
    assert (made.fallback, made.text) == (True, template_text(BACTERIAL))


def test_a_loop_is_cut_at_its_first_repetition() -> None:
    first, *rest = (fact.sentence for fact in facts(BACTERIAL))
    _, made = run(" ".join([first, *rest[:3], first, first]))
    assert made.text == " ".join([first, *rest[:3]])
    assert (made.fallback, made.problems) == (False, ("repetition",))


def test_a_last_sentence_that_was_cut_off_is_dropped() -> None:
    whole = " ".join(fact.sentence for fact in facts(BACTERIAL)[:4])
    _, made = run(f"{whole} Only a doctor can")
    assert (made.text, made.fallback) == (whole, False)


def test_the_stream_is_closed_as_soon_as_everything_is_said() -> None:
    closed = []

    def chatty() -> Iterator[str]:
        try:
            yield template_text(BACTERIAL)
            for _ in range(1000):
                yield " The software is a good software."
        finally:
            closed.append(True)

    *_, last = explain(BACTERIAL, chatty(), model="tiny")
    assert closed == [True]
    assert last.explanation is not None
    assert last.explanation.text == template_text(BACTERIAL)


def test_the_disclaimer_is_ours_and_travels_with_every_explanation() -> None:
    _, made = run(template_text(BACTERIAL))
    for one in (made, template_explanation(BACTERIAL)):
        values = one.as_dict()
        assert values["disclaimer"] == DISCLAIMER
        assert "not medical advice" in DISCLAIMER
        assert values["grounded"] is True


def test_a_model_that_has_only_seen_drawings_says_so() -> None:
    drawn = replace(BACTERIAL, synthetic=True)
    _, made = run(template_text(drawn), drawn)
    for one in (made, template_explanation(drawn)):
        assert one.disclaimer.startswith(DISCLAIMER)
        assert "trained on drawn pictures only" in one.disclaimer
