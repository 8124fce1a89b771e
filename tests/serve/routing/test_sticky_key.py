import hashlib
import uuid

from serve.routing.sticky_key import Sticky, sticky

SECRET, REQUEST = b"p" * 32, uuid.UUID(int=7)
UID = "1.2.840.113619.2.55.3"
UID_SHA256 = hashlib.sha256(UID.encode()).hexdigest()


def stuck(
    patient_key: str | None = None,
    study_key: str | None = None,
    study_sha256: str | None = None,
    client: str = "a",
) -> Sticky:
    return sticky(
        patient_key=patient_key,
        study_key=study_key,
        study_sha256=study_sha256,
        request=REQUEST,
        client=client,
        secret=SECRET,
    )


def test_the_patient_goes_before_the_study_and_the_study_before_the_request() -> None:
    assert stuck("p", "s", UID_SHA256) == stuck("p")
    assert stuck(None, "s", UID_SHA256) == stuck(None, "s")
    kinds = [one.kind for one in (stuck("p"), stuck(None, "s"), stuck(None, None, UID_SHA256), stuck())]
    assert kinds == ["patient", "study", "study", "request"]
    assert stuck().key == str(REQUEST)


def test_an_image_whose_caller_names_the_uid_belongs_to_the_study_of_the_dicom_files() -> None:
    assert stuck(None, UID) == stuck(None, None, UID_SHA256)


def test_neither_a_key_nor_a_uid_nor_its_plain_hash_is_kept_and_clients_have_keys_of_their_own() -> None:
    for one in (stuck("Jane"), stuck(None, "Jane"), stuck(None, None, UID_SHA256)):
        assert not {"Jane", UID, UID_SHA256} & {one.key, *one.as_assignment().values()}
    assert stuck("p").key != stuck("p", client="b").key
    assert stuck(None, "s").key != stuck(None, "s", client="b").key
    assert stuck("s").key != stuck(None, "s").key


def test_the_ledger_has_the_pseudonym_of_a_study_and_a_patients_in_a_column_of_its_own() -> None:
    study = stuck(None, "s")
    assert study.as_assignment() == {"key": "study", "study": study.key}
    assert (study.patient, stuck().patient) == (None, None)
    assert stuck("p").as_assignment() == {"key": "patient"}
    assert stuck("p").patient == stuck("p").key
