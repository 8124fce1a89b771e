"""The checker, against texts that must never reach a patient; each of its rules is shown refusing."""

import pytest

from serve.explanation.checker import check, check_sentence
from serve.explanation.finding import Finding, template_text
from tests.serve.explanation.chest_findings import BACTERIAL, BONE_NORMAL, FRACTURE, NORMAL, UNSURE

SAW = "The software saw signs of bacterial pneumonia in this chest X-ray."
CLEAR = "The software saw no abnormality of the chest in this X-ray."


@pytest.mark.parametrize(
    ("finding", "sentence", "code"),
    [
        # the finding turned round
        (BACTERIAL, "The software did not detect bacterial pneumonia.", "polarity"),
        (BACTERIAL, "The software didn’t see signs of bacterial pneumonia.", "polarity"),
        (BACTERIAL, "There are no signs of bacterial pneumonia in this X-ray.", "polarity"),
        (BACTERIAL, "The X-ray is free of bacterial pneumonia.", "polarity"),
        (BACTERIAL, "Bacterial pneumonia was ruled out by the software.", "polarity"),
        (BACTERIAL, "The software saw an absence of bacterial pneumonia.", "polarity"),
        (BACTERIAL, "The software cannot say that it is not bacterial pneumonia.", "polarity"),
        (BACTERIAL, "The software saw no abnormality of the chest in this X-ray.", "polarity"),
        (BACTERIAL, "This chest X-ray looks normal.", "polarity"),
        (BACTERIAL, "The software may have seen signs of bacterial pneumonia.", "polarity"),
        (BACTERIAL, "It is unlikely to be bacterial pneumonia.", "polarity"),
        (NORMAL, "The software saw an abnormality of the chest in this X-ray.", "polarity"),
        (NORMAL, "The software did not see no abnormality of the chest.", "polarity"),
        (NORMAL, "The X-ray is not normal.", "polarity"),
        (NORMAL, "The chest is normal but has abnormalities.", "polarity"),
        (BONE_NORMAL, "The software saw a fracture of the bone in this X-ray.", "new_finding"),
        (FRACTURE, "The software saw no fracture of the bone in this X-ray.", "polarity"),
        (FRACTURE, "The software did not see a fracture.", "polarity"),
        # something else found
        (BACTERIAL, "The software saw signs of tuberculosis in this chest X-ray.", "new_finding"),
        (BACTERIAL, "The software saw signs of bacterial pneumonia and lung cancer.", "new_finding"),
        (BACTERIAL, "The software saw signs of viral pneumonia in this chest X-ray.", "new_finding"),
        (BACTERIAL, "The software saw signs of bacterial pneumonia and viral pneumonia.", "new_finding"),
        (BACTERIAL, "The software saw signs of viral pneumonia and bacterial pneumonia is also possible.", "polarity"),
        (BACTERIAL, "It is most likely viral pneumonia.", "new_finding"),
        (BACTERIAL, "COVID-19 also remains possible.", "new_finding"),
        (BACTERIAL, "Other findings also remain possible.", "new_finding"),
        (NORMAL, "The software saw no abnormality of the chest but signs of tuberculosis.", "new_finding"),
        (NORMAL, "There is a small nodule in the lung.", "new_finding"),
        (BACTERIAL, "Your lungs are full of fluid.", "unknown_word"),
        # the number
        (BACTERIAL, "It is 78 % sure of bacterial pneumonia.", "number"),
        (BACTERIAL, "It is 8.87 % sure of bacterial pneumonia.", "number"),
        (BACTERIAL, "It is about 87 % sure of bacterial pneumonia.", "number"),
        (BACTERIAL, "It is more than 87 % sure of bacterial pneumonia.", "number"),
        (BACTERIAL, "It is eighty-seven percent sure of bacterial pneumonia.", "number"),
        (BACTERIAL, "It is 87 sure of bacterial pneumonia.", "number"),
        (BACTERIAL, "The software is 87 % sure that viral pneumonia also remains possible.", "number"),
        (BACTERIAL, "It is 87 % sure that a doctor should see this today.", "number"),
        (BACTERIAL, "It is 87 % sure of bacterial pneumonia, in 3 of 4 patients.", "number"),
        (BACTERIAL, "Nine out of ten doctors are sure of bacterial pneumonia.", "number"),
        (FRACTURE, "The software is 100 % sure of a fracture of a bone.", "number"),
        (FRACTURE, "The software is 99 % sure of a fracture of a bone.", "number"),
        (BACTERIAL, "The software is certain of bacterial pneumonia.", "overconfident"),
        # advice that is not ours to give
        (BACTERIAL, "Take 500 mg of amoxicillin twice a day.", "dosing"),
        (BACTERIAL, "Please take antibiotics today.", "dosing"),
        (BACTERIAL, "A doctor should prescribe a treatment today.", "dosing"),
        (BACTERIAL, "You do not need to see a doctor.", "polarity"),
        (BACTERIAL, "Please see a doctor about this at your next visit.", "triage"),
        (BACTERIAL, "Please see a doctor soon.", "triage"),
        (NORMAL, "Please see a doctor about this today.", "triage"),
        (BACTERIAL, "A doctor may be sure of this.", "doctor"),
        # who says what
        (BACTERIAL, "I saw signs of bacterial pneumonia.", "first_person"),
        (BACTERIAL, "In our opinion the X-ray shows bacterial pneumonia.", "first_person"),
        (BACTERIAL, "You have bacterial pneumonia.", "diagnosis"),
        (BACTERIAL, "It is bacterial pneumonia.", "diagnosis"),
        (BACTERIAL, "A doctor saw signs of bacterial pneumonia in this chest X-ray.", "diagnosis"),
        (BACTERIAL, "A doctor has confirmed that the X-ray shows bacterial pneumonia.", "diagnosis"),
        (BACTERIAL, "Bacterial pneumonia is confirmed by a doctor.", "diagnosis"),
        # an abstention that asserts
        (UNSURE, "The software saw signs of tuberculosis in this X-ray.", "overconfident"),
        (UNSURE, "The X-ray shows tuberculosis.", "overconfident"),
        (UNSURE, "The software is sure of tuberculosis.", "overconfident"),
        (UNSURE, "Its best guess is an opacity of the lung.", "label"),
        # what models do when they lose the thread
        (BACTERIAL, "Rewrite these facts as one short, friendly paragraph for the patient.", "unknown_word"),
        (BACTERIAL, "- The software saw signs of bacterial pneumonia.", "format"),
        (BACTERIAL, "Here is the text: the software saw signs of bacterial pneumonia.", "format"),
        (BACTERIAL, "Can a doctor confirm this?", "format"),
        (BACTERIAL, "The software saw signs of bacterial pneumonia in this", "format"),
    ],
)  # fmt: skip
def test_a_sentence_that_must_not_be_said_is_refused(finding: Finding, sentence: str, code: str) -> None:
    before = SAW if finding is BACTERIAL else ""
    assert code in check_sentence(sentence, finding, previous=before)


@pytest.mark.parametrize(
    ("left_out", "code"),
    [
        (SAW, "missing_finding"),
        ("It is 87 % sure of this.", "missing_number"),
        ("Viral pneumonia also remains possible.", "missing_alternatives"),
        ("Please see a doctor about this today.", "missing_doctor"),
    ],
)
def test_a_text_without_a_required_fact_is_refused(left_out: str, code: str) -> None:
    whole = template_text(BACTERIAL)
    assert check(whole, BACTERIAL) == []
    assert code in check(whole.replace(left_out, ""), BACTERIAL)


def test_an_abstention_that_does_not_say_that_it_is_unsure_is_refused() -> None:
    text = "Its best guess is tuberculosis, and it is only 41 % sure of this. Please see a doctor about this soon."
    assert "missing_finding" in check(f"{text} An opacity of the lung also remains possible.", UNSURE)


def test_loops_and_lengths_are_refused() -> None:
    whole = template_text(NORMAL)
    assert "repetition" in check(f"{whole} {CLEAR}", NORMAL)
    assert "length" in check(CLEAR, NORMAL)
    assert "length" in check(" ".join([whole] * 6), NORMAL)


def test_the_answer_of_another_finding_is_refused() -> None:
    findings = (BACTERIAL, NORMAL, BONE_NORMAL, FRACTURE, UNSURE)
    for one in findings:
        for other in findings:
            assert (check(template_text(one), other) == []) == (one is other)
