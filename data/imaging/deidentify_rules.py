"""The attributes of a DICOM header that a de-identified copy keeps, and the values that they may have.

`data.imaging.deidentify` applies these lists. An attribute that neither these lists nor the table of PS3.15 names
is removed.
"""

from functools import cache


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


NOBODY = _words("0 1 ANON ANONYMOUS ANONYMIZED UNKNOWN NONE NO_ID N/A TEST") | {""}
"""Patient ids that name no patient: images that share one are not thought to be of one patient."""
BODY_PARTS = _words(
    """
    ABDOMEN ABDOMENPELVIS ANKLE ARM BONE BREAST CALCANEUS CERVICALSPINE CHEST CHESTABDOMEN CLAVICLE
    COCCYX CSPINE ELBOW EXTREMITY FEMUR FINGER FOOT FOREARM FOREFOOT HAND HEAD HIP HUMERUS JAW KNEE LEG
    LOWERLEG LSPINE LUMBARSPINE LUNG MANDIBLE MAXILLA NECK ORBIT PATELLA PELVIS RADIUS RIB RIBS RIBCAGE
    SACRUM SCAPULA SHOULDER SKULL SPINE STERNUM THIGH THORAX THUMB TIBIAFIBULA TOE TSPINE THORACICSPINE
    ULNA WHOLEBODY WRIST ZYGOMA
    """
)
TERMS: dict[str, frozenset[str]] = {
    "BodyPartExamined": BODY_PARTS,
    "ConversionType": _words("DV DI DF WSD SD SI DRW SYN"),
    "DetectorType": _words("DIRECT SCINTILLATOR STORAGE FILM"),
    "ImageLaterality": _words("L R B U"),
    "ImageType": _words("ORIGINAL DERIVED PRIMARY SECONDARY"),
    "Laterality": _words("L R B"),
    "LossyImageCompression": _words("00 01"),
    "Modality": _words("CR DX OT RG RF XA CT MR IO PX MG SC DR XC BMD"),
    "PatientOrientation": _words("A P R L H F AL AR PL PR AF AH PF PH RF RH LF LH"),
    "PatientSex": _words("F M O"),
    "PhotometricInterpretation": _words("MONOCHROME1 MONOCHROME2 RGB YBR_FULL YBR_FULL_422 YBR_ICT YBR_RCT")
    | {"PALETTE COLOR"},
    "PixelIntensityRelationship": _words("LIN LOG DISP"),
    "PresentationIntentType": frozenset({"FOR PRESENTATION", "FOR PROCESSING"}),
    "PresentationLUTShape": _words("IDENTITY INVERSE"),
    "RescaleType": _words("OD HU US UNSPECIFIED"),
    "VOILUTFunction": _words("LINEAR LINEAR_EXACT SIGMOID"),
    "ViewPosition": _words("AP AXIAL LAO LATERAL LL LLD LLO LPO OBLIQUE PA RAO RL RLD RLO RPO"),
}
"""Coded strings that stay, and the terms that they may have (PS3.3, PS3.16 annex L and CID 4)."""
NUMBERS = _words(
    """
    SamplesPerPixel PlanarConfiguration Rows Columns PixelAspectRatio BitsAllocated BitsStored HighBit
    PixelRepresentation PixelPaddingValue PixelPaddingRangeLimit PixelSpacing ImagerPixelSpacing
    NominalScannedPixelSpacing RescaleSlope RescaleIntercept WindowCenter WindowWidth LUTDescriptor
    PixelIntensityRelationshipSign KVP ExposureTime XRayTubeCurrent Exposure ExposureInuAs ExposureInmAs
    DistanceSourceToDetector DistanceSourceToPatient LossyImageCompressionRatio
    """
)
"""Numbers that stay."""
TABLES = frozenset({"LUTData"})
"""Look-up tables that stay, cut to the entries that their descriptor counts."""
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
YEARS_OF = {"D": 1 / 365.25, "W": 7 / 365.25, "M": 1 / 12, "Y": 1.0}
"""Unit of an age string (DICOM PS3.5 6.2, value representation AS) → years."""
METHODS = (
    ("113100", "Basic Application Confidentiality Profile"),
    ("113107", "Retain Longitudinal Temporal Information Modified Dates Option"),
    ("113108", "Retain Patient Characteristics Option"),
)
"""Source: PS3.16 CID 7050."""


@cache
def actions() -> dict[int, str]:
    """Return attribute → action code of table E.1-1 (edition 2026c): X, Z, D, U or a choice of them."""
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
