"""What the language model is taught: true answers in several wordings, about findings that are not asked for later."""

import pytest

from data.taxonomy import taxonomy
from serve.explanation import training_pairs
from serve.explanation.checker import check
from serve.explanation.finding import Finding, prompt, template_text

TAUGHT, UNSEEN = training_pairs.taught(400, seed=0), training_pairs.unseen(80, seed=1)


def test_every_answer_passes_the_checker() -> None:
    assert [check(training_pairs.answer(one), one) for one in [*TAUGHT, *UNSEEN]] == [[]] * 480
    assert len(training_pairs.pairs(TAUGHT)) == 400


def test_an_answer_that_the_checker_refuses_is_not_taught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_pairs, "SURE", ("It is 13 % sure of this.",))
    sure = [one for one in TAUGHT if not one.abstained]
    assert training_pairs.pairs(sure) == []


def test_the_model_is_asked_what_serving_asks() -> None:
    assert [asked for asked, _ in training_pairs.pairs(TAUGHT[:3])] == [prompt(one) for one in TAUGHT[:3]]


def test_there_are_several_wordings_and_most_are_not_the_template() -> None:
    same = sum(training_pairs.answer(one) == template_text(one) for one in TAUGHT)
    assert same < len(TAUGHT) / 4


def test_no_combination_that_is_asked_for_is_ever_taught() -> None:
    def said(one: Finding) -> tuple[str, tuple[str, ...], str]:
        return one.label, tuple(sorted(other.name for other in one.others)), one.percent

    assert not {said(one) for one in training_pairs.taught(2000, seed=7)} & {said(one) for one in UNSEEN}


def test_all_classes_triages_and_abstentions_are_among_both() -> None:
    for found in (TAUGHT, UNSEEN):
        assert {one.label for one in found} == set(taxonomy().names)
        assert {one.triage for one in found} == {"routine", "soon", "urgent"}
        assert {one.abstained for one in found} == {True, False}


def test_the_same_seed_draws_the_same_findings() -> None:
    assert (
        training_pairs.taught(20, seed=3)
        == training_pairs.taught(20, seed=3)
        != training_pairs.taught(20, seed=4)
    )
