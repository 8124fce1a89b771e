"""X-rays full of invented identifiers, each a needle that no byte of ours may hold afterwards.

Used by the tests of de-identification (`tests/data`) and of the whole way through the platform (`tests/services`).
"""

import io
import random
from dataclasses import dataclass

import numpy as np
import pydicom
from PIL import Image, ImageDraw, ImageFont
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian

ROWS, COLUMNS = 256, 320


@dataclass(frozen=True, kw_only=True)
class Planted:
    """One DICOM file and one PNG of an invented patient, and all that must not come through."""

    dicom: bytes
    png: bytes
    file_stem: str
    """Holds a name too."""
    needles: dict[str, bytes]
    """Where it was planted → the bytes."""
    ink_HW: np.ndarray
    """bool: the pixels of the burned-in text."""
    column: str
    """For a further column of the manifest."""

    def found_in(self, blob: bytes) -> list[str]:
        """Needles in these bytes, as written, or as UTF-16, either case."""
        shown = blob.lower().translate(None, b"\0")  # UTF-16 of ASCII is every other byte of it
        return [name for name, needle in self.needles.items() if needle.lower() in shown]


class _Maker:
    """Makes needles that are unlike anything else, and remembers them."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.needles: dict[str, bytes] = {}

    def _keep(self, place: str, text: str) -> str:
        self.needles[place] = text.encode()
        return text

    def word(self, place: str) -> str:
        letters = "".join(self.random.choices("BCDFGHJKLMNPQRSTVWXZ", k=9))
        return self._keep(place, f"Q{letters}")

    def digits(self, place: str, length: int = 11) -> str:
        return self._keep(place, "".join(self.random.choices("123456789", k=length)))

    def time(self, place: str) -> str:
        return self._keep(place, f"112347.{self.random.randrange(10**5, 10**6)}")

    def uid(self, place: str) -> str:
        return self._keep(place, f"1.2.826.0.1.{self.random.randrange(10**15, 10**16)}.7")

    def day(self, place: str) -> str:
        year, month, day = (self.random.randrange(*ends) for ends in ((1925, 1935), (10, 13), (10, 29)))
        return self._keep(place, f"{year}{month}{day}")


def burned(text: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A soft 12-bit picture, bright and dark where a chest film is, with text on it; and where the ink is."""
    rows, columns = np.mgrid[0:ROWS, 0:COLUMNS] / np.array([ROWS, COLUMNS])[:, None, None] * 2 - 1
    spine = 1 / (1 + np.square(columns / 0.2))
    shoulders = np.clip((rows + 0.6) / 0.3, 0, 1)  # above them there is air, and the text
    body = np.clip(2.2 - 1.8 * np.hypot(columns, 0.6 * rows), 0, 1) * shoulders
    soft = 300 + 1500 * body * (0.5 + spine) + 20 * np.sin(3 * rows + seed)
    label = Image.new("L", (COLUMNS, ROWS))
    ImageDraw.Draw(label).text((9, 9), text, fill=255, font=ImageFont.load_default(18))
    ink_HW = np.asarray(label) > 127
    return np.where(ink_HW, 4095, soft).astype(np.uint16), ink_HW


def plant(seed: int) -> Planted:
    """More than 40 identifiers in one patient's files."""
    make = _Maker(seed)
    stored_HW, ink_HW = burned("DOE^JANE 17.02.1934", seed)
    data = FileDataset("", {}, file_meta=FileMetaDataset(), preamble=_padded(make.word("preamble"), 128))
    data.SOPClassUID = DigitalXRayImageStorageForPresentation
    data.SOPInstanceUID = make.uid("SOP instance")
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.file_meta.SourceApplicationEntityTitle = make.word("AE title")
    data.Modality, data.BodyPartExamined, data.ViewPosition = "DX", "CHEST", "PA"
    data.PatientSex, data.PatientAge, data.Manufacturer = "F", "093Y", f"FUJIFILM {make.word('manufacturer')}"
    _name_the_patient(data, make)
    _name_the_study(data, make)
    _nest(data, make)
    _hide(data, make)
    data.SamplesPerPixel, data.PhotometricInterpretation, data.PixelRepresentation = 1, "MONOCHROME2", 0
    data.Rows, data.Columns = ROWS, COLUMNS
    data.BitsAllocated, data.BitsStored, data.HighBit = 16, 12, 11
    data.PixelData = (stored_HW | 0xA000).tobytes()
    data["PixelData"].VR = "OW"
    data.add_new(0xFFFCFFFC, "OB", _padded(make.word("trailing padding"), 16))
    file = io.BytesIO()
    pydicom.dcmwrite(file, data, enforce_file_format=True)
    return Planted(
        dicom=file.getvalue(),
        png=_png(burned("MRN 4471902 DOE", seed + 1)[0], make),
        file_stem=make.word("file name"),
        column=make.word("manifest column"),
        needles=make.needles,
        ink_HW=ink_HW,
    )


def _name_the_patient(data: Dataset, make: _Maker) -> None:
    data.PatientName = f"{make.word('family name')}^{make.word('given name')}"
    data.PatientID, data.IssuerOfPatientID = make.digits("patient id"), make.word("issuer")
    data.OtherPatientNames, data.PatientMotherBirthName = make.word("other name"), make.word("mother's name")
    data.PatientBirthDate, data.PatientBirthTime = make.day("birth date"), make.time("birth time")
    data.PatientAddress, data.PatientTelephoneNumbers = make.word("address"), make.digits("telephone")
    data.MilitaryRank, data.EthnicGroup, data.Occupation = (
        make.word(place) for place in ("rank", "ethnic group", "occupation")
    )
    data.PatientComments, data.AdditionalPatientHistory = make.word("patient comments"), make.word("history")
    data.MedicalAlerts, data.PatientReligiousPreference = make.word("alerts"), make.word("religion")


def _name_the_study(data: Dataset, make: _Maker) -> None:
    data.StudyDate, data.AcquisitionDateTime = make.day("study date"), make.day("date time") + "114233.5"
    data.AccessionNumber, data.StudyID = make.digits("accession"), make.word("study id")
    data.StudyDescription, data.SeriesDescription = make.word("study"), make.word("series")
    data.ReferringPhysicianName, data.OperatorsName = make.word("referring physician"), make.word("operator")
    data.PerformingPhysicianName, data.InstitutionName = make.word("physician"), make.word("institution")
    data.InstitutionAddress, data.StationName = make.word("institution address"), make.word("station")
    data.DeviceSerialNumber, data.ImageComments = make.word("serial number"), make.word("image comments")
    data.StudyInstanceUID, data.SeriesInstanceUID = make.uid("study uid"), make.uid("series uid")
    data.FrameOfReferenceUID, data.InstanceNumber = make.uid("frame of reference"), make.digits("instance", 9)
    data.RetrieveURL, data.TextValue = f"https://x/{make.word('url')}", make.word("unlimited text")
    data.Laterality, data.KVP = make.word("coded string"), "81"


def _nest(data: Dataset, make: _Maker) -> None:
    reason, request, image, deep, voi = Dataset(), Dataset(), Dataset(), Dataset(), Dataset()
    reason.CodeMeaning = make.word("deep code meaning")
    request.RequestedProcedureDescription = make.word("nested description")
    request.ReasonForRequestedProcedureCodeSequence = Sequence([reason])
    data.RequestAttributesSequence = Sequence([request])
    deep.PersonName = make.word("three levels down")
    image.ReferencedSOPClassUID = data.SOPClassUID
    image.ReferencedSOPInstanceUID = make.uid("referenced instance")
    image.PersonIdentificationCodeSequence = Sequence([deep])
    image.add_new(0x00091010, "LO", make.word("nested private"))
    data.ReferencedImageSequence = Sequence([image])
    voi.LUTDescriptor, voi.LUTExplanation = [4096, 0, 16], make.word("LUT explanation")
    voi.add_new(0x00283006, "OW", np.arange(4096, dtype="<u2").tobytes() + _padded(make.word("LUT tail"), 16))
    data.VOILUTSequence = Sequence([voi])


def _hide(data: Dataset, make: _Maker) -> None:
    data.add_new(0x00090010, "LO", make.word("private creator"))
    data.add_new(0x00091001, "LO", make.word("private text"))
    data.add_new(0x00091002, "OB", _padded(make.word("private bytes"), 32))
    inner = Dataset()
    inner.PatientName = make.word("name in a private sequence")
    data.add_new(0x00091003, "SQ", Sequence([inner]))
    data.add_new(0x00189998, "UN", _padded(make.word("unknown attribute"), 16))
    data.add_new(0x50000010, "US", 1)
    data.add_new(0x50003000, "OW", _padded(make.word("curve"), 16))
    data.add_new(0x60000010, "US", 16)
    data.add_new(0x60000011, "US", 16)
    data.add_new(0x60004000, "LT", make.word("overlay comments"))
    data.add_new(0x60003000, "OW", _padded(make.word("overlay"), 32))


def _png(stored_HW: np.ndarray, make: _Maker) -> bytes:
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_text("Patient", make.word("PNG text chunk"))
    exif = Image.Exif()
    exif[0x010E] = make.word("EXIF description")
    file = io.BytesIO()
    Image.fromarray((stored_HW >> 4).astype(np.uint8)).save(file, "PNG", pnginfo=info, exif=exif)
    return file.getvalue()


def _padded(text: str, length: int) -> bytes:
    return text.encode().ljust(length, b"\0")
