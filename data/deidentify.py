"""A DICOM dataset without its patient, after PS3.15 Annex E; what the catalog keeps of a header comes from it.

`data.ingest` reads facts through it, `data.export` writes copies with it. Two lists decide. The table of the
standard (edition 2026c, from the library dicom-anonymizer) says what happens to each attribute that it names.
An attribute that it does not name stays only when `TERMS` or `NUMBERS` names it and its value is one of the
terms, or a number: free text, private tags, curves and overlays have no way through. Of the profile's options,
Retain Longitudinal Temporal Information with Modified Dates and, in part, Retain Patient Characteristics (sex,
age up to 90) are in use. Knows nothing of pixels.
"""

import re
import uuid
from collections.abc import Callable
from datetime import date, timedelta
from functools import cache

from pydicom.datadict import dictionary_VR, keyword_for_tag, tag_for_keyword
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence
from pydicom.tag import BaseTag
from pydicom.uid import UID, ExplicitVRLittleEndian, UID_dictionary

from cluster.secrets import keyed_hash
from data.dicom import DICOM_ERRORS

EDITION = "2026c"
OLDEST_NAMED_YEARS = 90
"""Ages above are stored as this one: 45 CFR 164.514(b)(2)(i)(C), safe harbour."""
MOST_SHIFT_DAYS = 3650
DEEPEST = 4
"""Nested sequences below this level are dropped."""
IMPLEMENTATION = UID("2.25.238401926718226943216180425067195312071")
NOBODY = frozenset(
    {"", "0", "1", "ANON", "ANONYMOUS", "ANONYMIZED", "UNKNOWN", "NONE", "NO_ID", "N/A", "TEST"}
)
"""Patient ids that name no patient: images that share one are not thought to be of one patient."""

# fmt: off
BODY_PARTS = frozenset(
    [
        "ABDOMEN", "ABDOMENPELVIS", "ANKLE", "ARM", "BONE", "BREAST", "CALCANEUS", "CERVICALSPINE",
        "CHEST", "CHESTABDOMEN", "CLAVICLE", "COCCYX", "CSPINE", "ELBOW", "EXTREMITY", "FEMUR",
        "FINGER", "FOOT", "FOREARM", "FOREFOOT", "HAND", "HEAD", "HIP", "HUMERUS", "JAW", "KNEE", "LEG",
        "LOWERLEG", "LSPINE", "LUMBARSPINE", "LUNG", "MANDIBLE", "MAXILLA", "NECK", "ORBIT", "PATELLA",
        "PELVIS", "RADIUS", "RIB", "RIBS", "RIBCAGE", "SACRUM", "SCAPULA", "SHOULDER", "SKULL", "SPINE",
        "STERNUM", "THIGH", "THORAX", "THUMB", "TIBIAFIBULA", "TOE", "TSPINE", "THORACICSPINE", "ULNA",
        "WHOLEBODY", "WRIST", "ZYGOMA",
    ]
)
TERMS: dict[str, frozenset[str]] = {
    "BodyPartExamined": BODY_PARTS,
    "ConversionType": frozenset({"DV", "DI", "DF", "WSD", "SD", "SI", "DRW", "SYN"}),
    "DetectorType": frozenset({"DIRECT", "SCINTILLATOR", "STORAGE", "FILM"}),
    "ImageLaterality": frozenset("LRBU"),
    "ImageType": frozenset({"ORIGINAL", "DERIVED", "PRIMARY", "SECONDARY"}),
    "Laterality": frozenset("LRB"),
    "LossyImageCompression": frozenset({"00", "01"}),
    "Modality": frozenset(
        ["CR", "DX", "OT", "RG", "RF", "XA", "CT", "MR", "IO", "PX", "MG", "SC", "DR", "XC", "BMD"]
    ),
    "PatientOrientation": frozenset(
        [
            "A", "P", "R", "L", "H", "F", "AL", "AR", "PL", "PR", "AF", "AH", "PF", "PH", "RF", "RH",
            "LF", "LH",
        ]
    ),
    "PatientSex": frozenset("FMO"),
    "PhotometricInterpretation": frozenset(
        [
            "MONOCHROME1", "MONOCHROME2", "RGB", "YBR_FULL", "YBR_FULL_422", "YBR_RCT", "YBR_ICT",
            "PALETTE COLOR",
        ]
    ),
    "PixelIntensityRelationship": frozenset({"LIN", "LOG", "DISP"}),
    "PresentationIntentType": frozenset({"FOR PRESENTATION", "FOR PROCESSING"}),
    "PresentationLUTShape": frozenset({"IDENTITY", "INVERSE"}),
    "RescaleType": frozenset({"OD", "HU", "US", "UNSPECIFIED"}),
    "VOILUTFunction": frozenset({"LINEAR", "LINEAR_EXACT", "SIGMOID"}),
    "ViewPosition": frozenset(
        [
            "AP", "PA", "LL", "RL", "LAO", "RAO", "LPO", "RPO", "LLD", "RLD", "LLO", "RLO", "LATERAL",
            "OBLIQUE", "AXIAL",
        ]
    ),
}
"""Coded strings that stay, and the terms that they may have (PS3.3, PS3.16 annex L and CID 4)."""
NUMBERS = frozenset(
    [
        "SamplesPerPixel", "PlanarConfiguration", "Rows", "Columns", "PixelAspectRatio",
        "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "PixelPaddingValue",
        "PixelPaddingRangeLimit", "PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing",
        "RescaleSlope", "RescaleIntercept", "WindowCenter", "WindowWidth", "LUTDescriptor",
        "PixelIntensityRelationshipSign", "KVP", "ExposureTime", "XRayTubeCurrent", "Exposure",
        "ExposureInuAs", "ExposureInmAs", "DistanceSourceToDetector", "DistanceSourceToPatient",
        "LossyImageCompressionRatio",
    ]
)
"""Numbers that stay."""
TABLES = frozenset({"LUTData"})
"""Look-up tables that stay, cut to the entries that their descriptor counts."""
# fmt: on
SEQUENCES = frozenset(
    ["ModalityLUTSequence", "VOILUTSequence", "ReferencedImageSequence", "SourceImageSequence"]
)
DATES = frozenset(["StudyDate", "SeriesDate", "AcquisitionDate", "ContentDate", "InstanceCreationDate"])
"""Dates that stay, shifted: the option for modified dates. Times of day do not."""
CLASSES = frozenset({"SOPClassUID", "ReferencedSOPClassUID"})
VENDORS = (
    *("AGFA", "CANON", "CARESTREAM", "DURR", "FUJI", "GE", "HITACHI", "HOLOGIC", "KODAK", "KONICA", "LODOX"),
    *("PHILIPS", "SAMSUNG", "SHIMADZU", "SIEMENS", "SWISSRAY", "TOSHIBA", "VAREX", "VIDAR"),
)
"""A manufacturer is kept as one of these words, or not at all."""
METHODS = (
    ("113100", "Basic Application Confidentiality Profile"),
    ("113107", "Retain Longitudinal Temporal Information Modified Dates Option"),
    ("113108", "Retain Patient Characteristics Option"),
)
"""Source: PS3.16 CID 7050."""

AGE = re.compile(r"(\d{3})([DWMY])")
YEARS_OF = {"D": 1 / 365.25, "W": 7 / 365.25, "M": 1 / 12, "Y": 1.0}


def patient_of(dataset: Dataset) -> str | None:
    """The file's own patient id with its issuer, to be hashed at once; None when it names nobody."""
    identity = _text(dataset, "PatientID")
    if identity.upper() in NOBODY:
        return None
    issuer = _text(dataset, "IssuerOfPatientID")
    return f"{identity}\\{issuer}" if issuer else identity


def deidentify(dataset: Dataset, *, key: bytes, patient: str) -> Dataset:
    """The same image, without anything that leads back to the patient; the input is left alone.

    Args:
        dataset: as `data.dicom.open_dicom` reads it; pixel data are not copied.
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
    if vendor := next((one for one in VENDORS if one in _text(dataset, "Manufacturer").upper()), None):
        clean.Manufacturer = vendor
    clean.PatientIdentityRemoved = "YES"
    clean.LongitudinalTemporalInformationModified = "MODIFIED"
    clean.DeidentificationMethod = f"DICOM PS3.15 Annex E {EDITION}, Raydiology"
    clean.DeidentificationMethodCodeSequence = Sequence(_code(*method) for method in METHODS)
    clean.file_meta = _file_meta(clean)
    clean.preamble = bytes(128)
    return clean


def facts(clean: Dataset) -> dict[str, str]:
    """What the catalog keeps of a de-identified header; a missing entry is unknown.

    Returns:
        sex, age (years), view, modality, body_part, laterality, study_date_shifted (ISO), device_class.
    """
    modality = str(clean.get("Modality") or "")
    laterality = clean.get("ImageLaterality") or clean.get("Laterality")
    found = {
        "sex": clean.get("PatientSex"),
        "age": _years(str(clean.get("PatientAge") or "")),
        "view": clean.get("ViewPosition"),
        "modality": modality,
        "body_part": clean.get("BodyPartExamined"),
        "laterality": laterality,
        "study_date_shifted": _iso(str(clean.get("StudyDate") or "")),
        "device_class": f"{clean.Manufacturer} {modality}".strip() if clean.get("Manufacturer") else None,
    }
    return {name: str(value) for name, value in found.items() if value}


def new_uid(key: bytes, old: str) -> UID:
    """The keyed UID that stands for `old` everywhere. Source: PS3.5 B.2, UUID-derived; RFC 9562 version 8."""
    value = int(keyed_hash(key, "uid", old)[:32], 16)
    value = value & ~(0xF << 76) | 8 << 76
    value = value & ~(0b11 << 62) | 0b10 << 62
    return UID(f"2.25.{uuid.UUID(int=value).int}")


@cache
def actions() -> dict[int, str]:
    """Attribute → action code of table E.1-1 in the edition above: X, Z, D, U or a choice of them."""
    from dicomanonymizer.dicom_anonymization_databases import dicomfields_2026c as table

    codes = {
        "X": table.X_TAGS,
        "Z": table.Z_TAGS,
        "D": table.D_TAGS,
        "U": table.U_TAGS,
        "Z/D": table.Z_D_TAGS,
        "X/Z": table.X_Z_TAGS,
        "X/D": table.X_D_TAGS,
        "X/Z/D": table.X_Z_D_TAGS,
        "X/Z/U*": table.X_Z_U_STAR_TAGS,
    }
    return {tag[0] << 16 | tag[1]: code for code, tags in codes.items() for tag in tags if len(tag) == 2}


def _cleaned(dataset: Dataset, key: bytes, shift: timedelta, depth: int) -> Dataset:
    clean = Dataset()
    for tag in sorted(dataset.keys()):
        element = _kept(dataset, BaseTag(tag), key, shift, depth)
        if element is not None:
            clean.add(element)
    return clean


def _kept(dataset: Dataset, tag: BaseTag, key: bytes, shift: timedelta, depth: int) -> DataElement | None:
    """What becomes of one attribute; None: it is gone."""
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
            kept = rule(dataset, keyword, shift)
            return None if kept is None else DataElement(tag, dataset[tag].VR, kept)
        if keyword in CLASSES:
            known = str(dataset[tag].value) in UID_dictionary
            return DataElement(tag, "UI", dataset[tag].value) if known else None
        return _by_table(dataset, tag, vr, key)
    except DICOM_ERRORS:
        return None  # a value that cannot be read cannot be vouched for


def _rule(keyword: str) -> Callable[[Dataset, str, timedelta], object] | None:
    """How a value of ours is checked; None for all other attributes."""
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
    """The standard's action: of a choice, what keeps the object valid; what the table does not name is gone."""
    code = actions().get(int(tag), "X")
    if code == "U":
        old = dataset[tag].value
        new = [new_uid(key, str(one)) for one in (old if isinstance(old, MultiValue) else [old]) if one]
        return DataElement(tag, "UI", new if len(new) > 1 else new[0]) if new else None
    if "Z" in code:
        return DataElement(tag, vr, Sequence() if vr == "SQ" else None)
    if "D" in code:
        return DataElement(tag, vr, _dummy(vr))
    return None


def _dummy(vr: str) -> object:
    """A value that says nothing and is not empty."""
    if vr == "SQ":
        return Sequence([Dataset()])
    fixed = {"DA": "19000101", "DT": "19000101", "TM": "000000", "DS": "0", "IS": "0", "AS": "000Y"}
    if vr in ("US", "SS", "UL", "SL", "FL", "FD", "UV", "SV"):
        return 0
    return bytes(2) if vr in ("OB", "OW", "OF", "OD", "OL", "UN") else fixed.get(vr, "REMOVED")


def _terms(dataset: Dataset, keyword: str, _: timedelta) -> object:
    value = dataset[keyword].value
    values = [str(one) for one in value] if isinstance(value, MultiValue) else [str(value)]
    kept = [one.strip().upper() for one in values]
    if keyword == "ImageType":
        kept = [one for one in kept[:2] if one in TERMS[keyword]]
    if not kept or any(one not in TERMS[keyword] for one in kept):
        return None
    return kept if len(kept) > 1 else kept[0]


def _numbers(dataset: Dataset, keyword: str, _: timedelta) -> object:
    value = dataset[keyword].value
    values = value if isinstance(value, MultiValue | list) else [value]
    whole = dataset[keyword].VR not in ("DS", "FL", "FD")
    kept = [int(one) if whole else float(str(one)) for one in values]
    if not kept:
        return None
    if dataset[keyword].VR == "DS":
        return [f"{one:.10g}" for one in kept] if len(kept) > 1 else f"{kept[0]:.10g}"
    return kept if len(kept) > 1 else kept[0]


def _table(dataset: Dataset, keyword: str, _: timedelta) -> object:
    entries, _first, bits = (int(one) for one in dataset.LUTDescriptor)
    entries = entries % 65536 or 65536
    value = dataset[keyword].value
    if isinstance(value, bytes):
        return value[: entries * (1 if bits <= 8 and len(value) < 2 * entries else 2)]
    return list(value)[:entries]


def _shifted(dataset: Dataset, keyword: str, shift: timedelta) -> object:
    found = re.fullmatch(r"(\d{4})\.?(\d\d)\.?(\d\d)", str(dataset[keyword].value).strip())
    if found is None:
        return None
    return (date(int(found[1]), int(found[2]), int(found[3])) + shift).strftime("%Y%m%d")


def _age(dataset: Dataset, keyword: str, _: timedelta) -> object:
    found = AGE.fullmatch(str(dataset[keyword].value).strip())
    if found is None:
        return None
    old = int(found[1]) * YEARS_OF[found[2]] > OLDEST_NAMED_YEARS
    return f"{OLDEST_NAMED_YEARS:03d}Y" if old else found[0]


def _years(age: str) -> str | None:
    found = AGE.fullmatch(age)
    return f"{round(int(found[1]) * YEARS_OF[found[2]], 2):g}" if found else None


def _iso(day: str) -> str | None:
    return f"{day[:4]}-{day[4:6]}-{day[6:]}" if len(day) == 8 else None


def _text(dataset: Dataset, keyword: str) -> str:
    """A short text, read without the file's character set, whose name could itself be anything."""
    tag = tag_for_keyword(keyword)
    if tag is None or tag not in dataset:
        return ""
    element = dataset.get_item(tag)
    value = element.value if isinstance(element, RawDataElement) else dataset[tag].value
    text = value.decode("latin-1") if isinstance(value, bytes) else str(value or "")
    return text.strip(" \0")


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
