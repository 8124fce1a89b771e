"""Marks of erased patients and files."""

from data.catalog.erased_patients import file_mark, is_marked, patient_mark

KEY = bytes(range(32))


def test_an_image_is_marked_by_its_patient_or_by_its_file() -> None:
    patient, file = frozenset({patient_mark("p", KEY)}), frozenset({file_mark("f", KEY)})
    assert is_marked(patient, "p", "other", KEY)
    assert is_marked(file, "other", "f", KEY)
    assert not is_marked(patient | file, "f", "p", KEY)
    assert not is_marked(frozenset(), "p", "f", KEY)


def test_a_mark_tells_nothing_without_the_key() -> None:
    mark = patient_mark("p", KEY)
    assert "p" not in mark.strip("0123456789abcdef")
    assert mark != patient_mark("p", KEY[::-1])
    assert mark != file_mark("p", KEY)
