"""Physicians' notes: what is left out, and what is kept from training."""

import json
from pathlib import Path

import pytest

from serve.explanation import physician_notes, training_pairs
from serve.explanation.finding import prompt

TAUGHT, UNSEEN = training_pairs.taught(400, seed=0), training_pairs.unseen(80, seed=1)


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
