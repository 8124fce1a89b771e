"""Sentences that say the same in other words are read alike."""

import pytest

from serve.explanation.checker import check, check_sentence
from serve.explanation.finding import Finding
from tests.serve.explanation.chest_findings import BACTERIAL, BONE_NORMAL, FRACTURE, NORMAL, UNSURE

SAW = "The software saw signs of bacterial pneumonia in this chest X-ray."


CLEAR = "The software saw no abnormality of the chest in this X-ray."


@pytest.mark.parametrize(
    ("finding", "sentence"),
    [
        (BACTERIAL, "It is 87% sure of this."),
        (BACTERIAL, "The software found signs of bacterial pneumonia and is 87 percent confident."),
        (BACTERIAL, "Viral pneumonia is also possible."),
        (BACTERIAL, "Please see a doctor today, who can confirm this finding."),
        (FRACTURE, "The software is over 99 % sure of a fracture of a bone."),
        (NORMAL, "The X-ray shows no abnormalities in the chest."),
        (BONE_NORMAL, "The software is 81 % sure that there is no fracture."),
        (UNSURE, "The software is unsure what this X-ray shows."),
        (UNSURE, "Tuberculosis is its best guess, but it is only 41 % sure."),
    ],
)
def test_another_way_to_say_the_facts_is_accepted(finding: Finding, sentence: str) -> None:
    assert check_sentence(sentence, finding, previous=SAW if finding is BACTERIAL else "") == []


def test_a_number_that_follows_an_alternative_would_be_read_as_its_own() -> None:
    swapped = f"{SAW} Viral pneumonia also remains possible. It is 87 % sure of this."
    assert "number" in check(f"{swapped} Please see a doctor about this today.", BACTERIAL)


def test_a_doctor_who_is_only_mentioned_is_no_advice_to_see_one() -> None:
    text = f"{CLEAR} It is 93 % sure of this. Only a doctor can confirm this."
    assert check(text, NORMAL) == ["missing_doctor"]
