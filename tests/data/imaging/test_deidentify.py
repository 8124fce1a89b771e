"""`data.imaging.deidentify` and `data.privacy.export.dicom_copy`: nothing planted comes through, and what must
hold together does.
"""

import io
from datetime import datetime
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.uid import UID

from data.imaging import deidentify as rules
from data.imaging.burned_in_text import find_text
from data.imaging.deidentify import deidentify, facts, new_uid, patient_of
from data.imaging.dicom import decode_dicom, open_dicom
from data.privacy.export import dicom_copy
from data.sandbox.decoder import Decoder
from tests.data.imaging.headers import KEY, PATIENT, header
from tests.planted import Planted

REAL = Path(__file__).resolve().parents[3].parent / "shared" / "data" / "xrays" / "dicom"


def test_the_planted_identifiers_are_many_and_all_in_the_original(planted: Planted) -> None:
    """The search itself is shown to find every one of them."""
    assert len(planted.needles) >= 40
    elsewhere = {"file name", "manifest column", "EXIF description", "PNG text chunk"}
    assert set(planted.found_in(planted.dicom)) == planted.needles.keys() - elsewhere
    assert set(planted.found_in(planted.png)) <= elsewhere


def test_no_planted_identifier_is_in_the_copy(planted: Planted, blob: bytes) -> None:
    assert planted.found_in(blob) == []
    assert blob[:128] == bytes(128)


def test_the_burned_in_text_is_gone_from_the_stored_pixels_and_the_rest_is_untouched(
    planted: Planted, data: Dataset
) -> None:
    before = pydicom.dcmread(io.BytesIO(planted.dicom)).pixel_array & 0xFFF
    after = data.pixel_array
    changed = before != after
    rows, columns = np.nonzero(changed)
    box_HW = np.zeros_like(changed)
    box_HW[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1] = True
    assert changed[planted.ink_HW].all()
    ink, around = after[planted.ink_HW], after[box_HW & ~planted.ink_HW]
    assert abs(float(ink.mean()) - float(around.mean())) < 0.05 * (4095 - float(around.mean()))
    assert box_HW.mean() < 0.15
    assert int(np.frombuffer(data.PixelData, "<u2").max()) < 4096, "nothing is left in the unused bits"


def test_what_the_picture_needs_stays(data: Dataset, blob: bytes) -> None:
    assert decode_dicom(blob).shape == (256, 320)
    assert (data.Modality, data.BodyPartExamined, data.ViewPosition) == ("DX", "CHEST", "PA")
    assert (data.BitsStored, data.VOILUTSequence[0].LUTDescriptor[0], float(data.KVP)) == (12, 4096, 81.0)


def test_the_copy_says_what_was_done_to_it(data: Dataset) -> None:
    assert data.PatientIdentityRemoved == "YES"
    assert data.LongitudinalTemporalInformationModified == "MODIFIED"
    codes = [item.CodeValue for item in data.DeidentificationMethodCodeSequence]
    assert codes == ["113100", "113107", "113108"]
    assert (data.PatientID, str(data.PatientName)) == (PATIENT, PATIENT)
    assert data.file_meta.MediaStorageSOPInstanceUID == data.SOPInstanceUID
    assert "SourceApplicationEntityTitle" not in data.file_meta
    assert not [element for element in data.iterall() if element.tag.is_private]
    assert not [element for element in data.iterall() if element.tag.group in range(0x5000, 0x6100)]


def test_the_original_dataset_is_left_alone(planted: Planted) -> None:
    original = open_dicom(planted.dicom)
    deidentify(original, key=KEY, patient=PATIENT)
    file = io.BytesIO()
    pydicom.dcmwrite(file, original)
    assert len(planted.found_in(file.getvalue())) > 40


def test_uids_are_replaced_alike_everywhere_and_only_with_the_key() -> None:
    item = header(ReferencedSOPClassUID="1.2.840.10008.5.1.4.1.1.7", ReferencedSOPInstanceUID="1.2.3.4")
    data = header(SOPInstanceUID="1.2.3.4", StudyInstanceUID="1.2.3.5", ReferencedImageSequence=[item])
    clean = deidentify(data, key=KEY, patient=PATIENT)
    assert clean.SOPInstanceUID == clean.ReferencedImageSequence[0].ReferencedSOPInstanceUID
    assert clean.SOPInstanceUID != clean.StudyInstanceUID
    assert clean.ReferencedImageSequence[0].ReferencedSOPClassUID == "1.2.840.10008.5.1.4.1.1.7"
    assert new_uid(KEY, "1.2.3.4") == clean.SOPInstanceUID != new_uid(bytes(32), "1.2.3.4")
    assert UID(clean.SOPInstanceUID).is_valid
    assert clean.SOPInstanceUID.startswith("2.25.")


def test_dates_of_a_patient_keep_their_intervals_and_patients_are_shifted_apart() -> None:
    def shifted(day: str, patient: str) -> datetime:
        clean = deidentify(header(StudyDate=day, StudyTime="114233"), key=KEY, patient=patient)
        assert not clean.StudyTime
        return datetime.strptime(clean.StudyDate, "%Y%m%d")

    first, later = shifted("20190131", PATIENT), shifted("20190303", PATIENT)
    assert (later - first).days == 31
    assert 1 <= (datetime(2019, 1, 31) - first).days <= rules.MOST_SHIFT_DAYS
    assert len({shifted("20190131", f"patient {n}") for n in range(50)}) > 45


@pytest.mark.parametrize(
    ("told", "kept"), [("056Y", "056Y"), ("090Y", "090Y"), ("091Y", "090Y"), ("018M", "018M"), ("999X", None)]
)
def test_an_age_above_90_is_90_and_what_is_no_age_is_gone(told: str, kept: str | None) -> None:
    data = open_dicom(written("PatientAge", told))
    assert deidentify(data, key=KEY, patient=PATIENT).get("PatientAge") == kept


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("BodyPartExamined", "JANE DOE"),
        ("ViewPosition", "DOE"),
        ("Modality", "JANE"),
        ("PatientSex", "JANE"),
        ("SOPClassUID", "1.2.826.0.1.99"),
        ("StudyDate", "JANE DOE"),
        ("KVP", "JANE"),
        ("WindowCenter", "DOE"),
        ("InstanceNumber", "4711"),
        ("ContentCreatorName", "DOE"),
    ],
)
def test_a_value_that_is_no_term_number_or_date_is_gone(keyword: str, value: str) -> None:
    data = open_dicom(written(keyword, value))
    clean = deidentify(data, key=KEY, patient=PATIENT)
    assert not clean.get(keyword)
    assert value not in str(clean)


def written(keyword: str, value: str) -> bytes:
    """A little file, in implicit VR so that nothing checks the value."""
    tag, body = tag_for_keyword(keyword), value.encode()
    body += b" " * (len(body) % 2)
    element = tag.to_bytes(4, "big")
    packed = element[1::-1] + element[:1:-1] + len(body).to_bytes(4, "little") + body
    return b"\x08\x00\x05\x00\x0a\x00\x00\x00ISO_IR 100" + packed if tag > 0x00080005 else packed


def test_ids_that_name_nobody_are_no_patient_id() -> None:
    assert patient_of(header(PatientID="anonymous")) is patient_of(header()) is None
    assert patient_of(header(PatientID="4711 ")) == "4711"
    assert patient_of(header(PatientID="4711", IssuerOfPatientID="A")) == "4711\\A"


def test_facts_of_a_header_are_few_and_clean() -> None:
    data = header(
        PatientSex="F", PatientAge="006M", ViewPosition="AP", Modality="CR", BodyPartExamined="CHEST",
        ImageLaterality="L", StudyDate="20200101", Manufacturer="Agfa-Gevaert AG Ward 3",
    )  # fmt: skip
    told = facts(deidentify(data, key=KEY, patient=PATIENT))
    day = told.pop("study_date_shifted")
    assert (len(day), day < "2020-01-01") == (10, True)
    assert told == {
        "sex": "F", "age": "0.5", "view": "AP", "modality": "CR", "body_part": "CHEST", "laterality": "L",
        "device_class": "AGFA CR",
    }  # fmt: skip
    assert facts(deidentify(Dataset(), key=KEY, patient=PATIENT)) == {}


@pytest.mark.skipif(not REAL.exists(), reason="the real X-rays are not here")
def test_copies_of_real_files_show_the_same_picture_and_hold_no_value_of_the_header(decoder: Decoder) -> None:
    for path in sorted(REAL.glob("*.dcm")):
        if path.stem in ("dx_no_pixel_data", "der_truncated"):
            continue
        original = pydicom.dcmread(path)
        blob = dicom_copy(path.read_bytes(), decoder, key=KEY, patient=PATIENT)
        shown_HW = decode_dicom(path.read_bytes())
        outside_HW = np.ones(shown_HW.shape, bool)
        for box in find_text(shown_HW):
            outside_HW[box.top : box.bottom, box.left : box.right] = False
        before, after = shown_HW[outside_HW], decode_dicom(blob)[outside_HW]
        assert outside_HW.mean() > 0.95, path.stem
        assert np.corrcoef(before, after)[0, 1] > 0.9999, path.stem
        names = (
            "PatientName",
            "PatientID",
            "StudyInstanceUID",
            "SOPInstanceUID",
            "InstitutionName",
            "StudyDate",
        )
        values = [str(original.get(name) or "").encode() for name in names]
        assert [one for one in values if len(one) > 5 and one in blob] == [], path.stem
