"""The attributes that a de-identified copy keeps are held to the table of DICOM PS3.15."""

import pydicom
from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset

from data.imaging import deidentify as rules
from data.imaging.deidentify import actions, deidentify
from tests.data.imaging.headers import KEY, PATIENT, header


def test_the_list_of_what_stays_is_no_wider_than_the_standards_table() -> None:
    ours = {*rules.TERMS, *rules.NUMBERS, *rules.TABLES, *rules.CLASSES}
    named = {keyword for keyword in ours if tag_for_keyword(keyword) in actions()}
    assert named == {"PatientSex"}, "the option for patient characteristics, and nothing else"
    assert len(actions()) > 500
    assert {actions()[tag_for_keyword(one)] for one in ("PatientName", "PatientID")} <= {"Z", "Z/D"}


def test_every_attribute_of_the_standards_table_is_emptied_replaced_or_gone() -> None:
    """One dataset with all of them, each with the same needle: none may keep it."""
    data = Dataset()
    for tag in filter(pydicom.datadict.dictionary_has_tag, actions()):
        vr = pydicom.datadict.dictionary_VR(tag).split(" or ")[0]
        if vr == "SQ":
            data.add_new(tag, vr, [header(PatientName="QNEEDLE")])
        elif vr == "UI":
            data.add_new(tag, vr, "1.2.777777.1")
        elif vr in ("PN", "LO", "SH", "ST", "LT", "UT", "UC", "UR", "AE", "CS"):
            data.add_new(tag, vr, "QNEEDLE")
        elif vr == "DA":
            data.add_new(tag, vr, "19770717")
        elif vr == "DT":
            data.add_new(tag, vr, "19770717101010")
    assert len(data) > 450
    text = str(deidentify(data, key=KEY, patient=PATIENT))
    assert [needle for needle in ("QNEEDLE", "1.2.777777.1", "19770717") if needle in text] == []
