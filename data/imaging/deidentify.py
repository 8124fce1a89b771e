"""Remove the patient from a DICOM dataset, after PS3.15 Annex E; the catalog's facts of a header come from it.

`data.catalog.ingest` reads facts through it, `data.privacy.export` writes copies with it. Two lists decide. The
table of the standard (edition 2026c, from the library dicom-anonymizer) says what happens to each attribute that
it names. An attribute that it does not name stays only when `TERMS` or `NUMBERS` names it and its value is one of
the terms, or a number: free text, private tags, curves and overlays never pass. Of the profile's options, Retain
Longitudinal Temporal Information with Modified Dates and, in part, Retain Patient Characteristics (sex, age up to
90) are in use. Knows nothing of pixels.
"""

import re
import uuid
from collections.abc import Callable
from datetime import date, timedelta

from pydicom.datadict import dictionary_VR, keyword_for_tag
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence
from pydicom.tag import BaseTag
from pydicom.uid import UID, ExplicitVRLittleEndian, UID_dictionary

from cluster.secrets import keyed_hash
from data.imaging.deidentify_rules import (
    CLASSES,
    DATES,
    METHODS,
    NOBODY,
    NUMBERS,
    SEQUENCES,
    TABLES,
    TERMS,
    VENDORS,
    YEARS_OF,
    actions,
)
from data.imaging.dicom import DICOM_ERRORS, raw_text

EDITION = "2026c"
OLDEST_NAMED_YEARS = 90
"""Ages above are stored as this one: 45 CFR 164.514(b)(2)(i)(C), safe harbour."""
MOST_SHIFT_DAYS = 3650
DEEPEST = 4
"""Nested sequences below this level are dropped."""
IMPLEMENTATION = UID("2.25.238401926718226943216180425067195312071")


AGE = re.compile(r"(\d{3})([DWMY])")


def patient_of(dataset: Dataset) -> str | None:
    """Return the file's own patient id with its issuer, to be hashed at once; None when it names no patient."""
    identity = raw_text(dataset, "PatientID")
    if identity.upper() in NOBODY:
        return None
    issuer = raw_text(dataset, "IssuerOfPatientID")
    return f"{identity}\\{issuer}" if issuer else identity


def deidentify(dataset: Dataset, *, key: bytes, patient: str) -> Dataset:
    """Return the same image without anything that leads back to the patient; the input is left alone.

    Args:
        dataset: as `data.imaging.dicom.open_dicom` reads it; pixel data are not copied.
        key: the pseudonym key: the same one gives the same UIDs and the same shift again.
        patient: pseudonym, at most 64 characters; it becomes patient id and name.
    """
    shift = timedelta(days=-1 - int(keyed_hash(key, "date shift", patient)[:12], 16) % MOST_SHIFT_DAYS)
    clean = _cleaned(dataset, key, shift, depth=0)
    clean.PatientName = clean.PatientID = patient
    clean.PatientBirthDate = ""
    for keyword in ("PatientSex", "Manufacturer", "StudyTime", "StudyDate", "StudyID", "AccessionNumber"):
        if keyword not in clean:
            setattr(clean, keyword, "")
    if vendor := next((name for name in VENDORS if name in raw_text(dataset, "Manufacturer").upper()), None):
        clean.Manufacturer = vendor
    clean.PatientIdentityRemoved = "YES"
    clean.LongitudinalTemporalInformationModified = "MODIFIED"
    clean.DeidentificationMethod = f"DICOM PS3.15 Annex E {EDITION}, Raydiology"
    clean.DeidentificationMethodCodeSequence = Sequence(_code(*method) for method in METHODS)
    clean.file_meta = _file_meta(clean)
    clean.preamble = bytes(128)
    return clean


def facts(clean: Dataset) -> dict[str, str]:
    """Return what the catalog keeps of a de-identified header; a missing entry is unknown.

    Returns:
        sex, age (years), view, modality, body_part, laterality, study_date_shifted (ISO), device_class.
    """
    modality = str(clean.get("Modality") or "")
    laterality = clean.get("ImageLaterality") or clean.get("Laterality")
    values = {
        "sex": clean.get("PatientSex"),
        "age": _years(str(clean.get("PatientAge") or "")),
        "view": clean.get("ViewPosition"),
        "modality": modality,
        "body_part": clean.get("BodyPartExamined"),
        "laterality": laterality,
        "study_date_shifted": _iso(str(clean.get("StudyDate") or "")),
        "device_class": f"{clean.Manufacturer} {modality}".strip() if clean.get("Manufacturer") else None,
    }
    return {name: str(value) for name, value in values.items() if value}


def new_uid(key: bytes, old: str) -> UID:
    """Return the keyed UID that stands for `old` everywhere. Source: PS3.5 B.2, UUID-derived; RFC 9562 version 8."""
    value = int(keyed_hash(key, "uid", old)[:32], 16)
    value = value & ~(0xF << 76) | 8 << 76
    value = value & ~(0b11 << 62) | 0b10 << 62
    return UID(f"2.25.{uuid.UUID(int=value).int}")


def _cleaned(dataset: Dataset, key: bytes, shift: timedelta, depth: int) -> Dataset:
    clean = Dataset()
    for tag in sorted(dataset.keys()):
        element = _clean_element(dataset, BaseTag(tag), key, shift, depth)
        if element is not None:
            clean.add(element)
    return clean


def _clean_element(
    dataset: Dataset, tag: BaseTag, key: bytes, shift: timedelta, depth: int
) -> DataElement | None:
    """Return one attribute as it may stay; None: it is removed."""
    keyword = keyword_for_tag(tag)
    if tag.is_private or not keyword or tag.group in (0x0000, 0x0002, 0x7FE0):
        return None
    vr = dictionary_VR(tag).split(" or ")[0]
    try:
        if keyword in SEQUENCES and depth < DEEPEST:
            items = [_cleaned(item, key, shift, depth + 1) for item in dataset[tag].value]
            return DataElement(tag, "SQ", Sequence(items)) if items else None
        rule = _rule(keyword)
        if rule is not None:
            value = rule(dataset, keyword, shift)
            return None if value is None else DataElement(tag, dataset[tag].VR, value)
        if keyword in CLASSES:
            known = str(dataset[tag].value) in UID_dictionary
            return DataElement(tag, "UI", dataset[tag].value) if known else None
        return _by_table(dataset, tag, vr, key)
    except DICOM_ERRORS:
        return None  # a value that cannot be read cannot be vouched for


def _rule(keyword: str) -> Callable[[Dataset, str, timedelta], object] | None:
    """Return how one of our attributes is checked; None for all others."""
    if keyword in TERMS:
        return _terms
    if keyword in NUMBERS:
        return _numbers
    if keyword in TABLES:
        return _table
    if keyword in DATES:
        return _shifted
    return _age if keyword == "PatientAge" else None


def _by_table(dataset: Dataset, tag: BaseTag, vr: str, key: bytes) -> DataElement | None:
    """Apply the standard's action: of a choice, what keeps the object valid; attributes not in the table go."""
    code = actions().get(int(tag), "X")
    if code == "U":
        old = dataset[tag].value
        new = [new_uid(key, str(uid)) for uid in (old if isinstance(old, MultiValue) else [old]) if uid]
        return DataElement(tag, "UI", new if len(new) > 1 else new[0]) if new else None
    if "Z" in code:
        return DataElement(tag, vr, Sequence() if vr == "SQ" else None)
    if "D" in code:
        return DataElement(tag, vr, _dummy(vr))
    return None


def _dummy(vr: str) -> object:
    """Return a value that says nothing and is not empty."""
    if vr == "SQ":
        return Sequence([Dataset()])
    fixed = {"DA": "19000101", "DT": "19000101", "TM": "000000", "DS": "0", "IS": "0", "AS": "000Y"}
    if vr in ("US", "SS", "UL", "SL", "FL", "FD", "UV", "SV"):
        return 0
    return bytes(2) if vr in ("OB", "OW", "OF", "OD", "OL", "UN") else fixed.get(vr, "REMOVED")


def _terms(dataset: Dataset, keyword: str, _: timedelta) -> object:
    value = dataset[keyword].value
    values = [str(term) for term in value] if isinstance(value, MultiValue) else [str(value)]
    terms = [term.strip().upper() for term in values]
    if keyword == "ImageType":
        terms = [term for term in terms[:2] if term in TERMS[keyword]]
    if not terms or any(term not in TERMS[keyword] for term in terms):
        return None
    return terms if len(terms) > 1 else terms[0]


def _numbers(dataset: Dataset, keyword: str, _: timedelta) -> object:
    value = dataset[keyword].value
    values = value if isinstance(value, MultiValue | list) else [value]
    whole = dataset[keyword].VR not in ("DS", "FL", "FD")
    numbers = [int(number) if whole else float(str(number)) for number in values]
    if not numbers:
        return None
    if dataset[keyword].VR == "DS":
        return [f"{number:.10g}" for number in numbers] if len(numbers) > 1 else f"{numbers[0]:.10g}"
    return numbers if len(numbers) > 1 else numbers[0]


def _table(dataset: Dataset, keyword: str, _: timedelta) -> object:
    entries, _first, bits = (int(entry) for entry in dataset.LUTDescriptor)
    entries = entries % 65536 or 65536
    value = dataset[keyword].value
    if isinstance(value, bytes):
        return value[: entries * (1 if bits <= 8 and len(value) < 2 * entries else 2)]
    return list(value)[:entries]


def _shifted(dataset: Dataset, keyword: str, shift: timedelta) -> object:
    match = re.fullmatch(r"(\d{4})\.?(\d\d)\.?(\d\d)", str(dataset[keyword].value).strip())
    if match is None:
        return None
    return (date(int(match[1]), int(match[2]), int(match[3])) + shift).strftime("%Y%m%d")


def _age(dataset: Dataset, keyword: str, _: timedelta) -> object:
    match = AGE.fullmatch(str(dataset[keyword].value).strip())
    if match is None:
        return None
    old = int(match[1]) * YEARS_OF[match[2]] > OLDEST_NAMED_YEARS
    return f"{OLDEST_NAMED_YEARS:03d}Y" if old else match[0]


def _years(age: str) -> str | None:
    match = AGE.fullmatch(age)
    return f"{round(int(match[1]) * YEARS_OF[match[2]], 2):g}" if match else None


def _iso(day: str) -> str | None:
    return f"{day[:4]}-{day[4:6]}-{day[6:]}" if len(day) == 8 else None


def _code(value: str, meaning: str) -> Dataset:
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = value, "DCM", meaning
    return code


def _file_meta(clean: Dataset) -> FileMetaDataset:
    meta = FileMetaDataset()
    meta.FileMetaInformationVersion = b"\0\1"
    if "SOPClassUID" in clean:
        meta.MediaStorageSOPClassUID = clean.SOPClassUID
    if "SOPInstanceUID" in clean:
        meta.MediaStorageSOPInstanceUID = clean.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = IMPLEMENTATION
    meta.ImplementationVersionName = "RAYDIOLOGY"
    return meta
