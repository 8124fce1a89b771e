"""What the language model is taught: true answers in several wordings, about findings that are not asked for later."""

import json
from pathlib import Path

import pytest

from data.taxonomy import taxonomy
from serve.explanation import physician_notes, training_pairs
from serve.explanation.checker import check
from serve.explanation.finding import Finding, prompt, template_text
from serve.explanation.pass_rate import audit

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


class Parrot:
    """Says what it is told to, whatever it is asked."""

    def __init__(self, texts: list[str]) -> None:
        self.texts = iter(texts)

    def generate(self, prompt: str, *, max_new_tokens: int, deadline_s: float) -> "iter[str]":  # type: ignore[valid-type]
        return iter([next(self.texts)])


def test_an_audit_counts_texts_that_pass_and_what_speaks_against_the_others() -> None:
    good, bad = (training_pairs.answer(one) for one in TAUGHT[:2])
    bad = bad.replace("Please", "You have cancer. Please")
    found = audit(Parrot([good, bad]), TAUGHT[:2])
    assert (found.passing, found.share) == (1, 0.5)
    assert found.problems["new_finding"] == found.problems["diagnosis"] == 1
    assert found.figures("after")["after_passing"] == 0.5


def write(path: Path, *rows: object) -> Path:
    path.write_text("\n".join(json.dumps(one) for one in rows))
    return path


def test_a_note_with_a_name_or_a_date_is_left_out_and_never_repeated(tmp_path: Path) -> None:
    one = next(one for one in TAUGHT if not one.abstained)
    good = training_pairs.answer(one)
    named = good.replace("Please", "Dear Mrs Miller, please")
    dated = f"{good} See you on 12.03.2026."
    rows = [{"finding": one.as_dict(), "text": text} for text in (good, named, dated)]
    found = physician_notes.read(write(tmp_path / "notes.jsonl", *rows))
    assert found.pairs == [(prompt(one), good)]
    assert "unknown_word" in found.refused[2]
    assert "number" in found.refused[3]
    assert "Miller" not in repr(found)


def test_a_note_about_an_unseen_finding_is_kept_from_training(tmp_path: Path) -> None:
    row = {"finding": UNSEEN[0].as_dict(), "text": training_pairs.answer(UNSEEN[0])}
    found = physician_notes.read(write(tmp_path / "notes.jsonl", row))
    assert (found.pairs, found.held_out) == ([], 1)


def test_a_file_that_is_no_notes_is_one_line_without_what_it_says(tmp_path: Path) -> None:
    with pytest.raises(physician_notes.NotesError, match="line 1 is no note") as caught:
        physician_notes.read(write(tmp_path / "notes.jsonl", {"patient": "Miller"}))
    assert "Miller" not in str(caught.value)
    with pytest.raises(physician_notes.NotesError, match="cannot be read"):
        physician_notes.read(tmp_path / "absent.jsonl")
