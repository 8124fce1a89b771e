"""Put a drawn picture through one of two invented X-ray machines and into a PNG or DICOM file.

Every file says SYNTHETIC: in its metadata, and in small letters that are burned into each picture alike.
"""

import hashlib
import io
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pydicom
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import UID, DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian

from data.synthetic.shapes import cloud

NOTICE = "SYNTHETIC: a drawing made by a program, not a patient"


@dataclass(frozen=True, kw_only=True)
class Site:
    """One invented department: its detector's matrix, its exposure habits and the files that it writes."""

    name: str
    aspect: float
    """Height over width of the matrix."""
    gamma: tuple[float, float]
    """Range of the exponent of the brightness curve."""
    grain: float
    """Deviation of the quantum noise, of the full range."""
    dicom_share: float
    monochrome1_share: float
    """Of the DICOM files, those stored with 0 = white."""
    png_bits: Literal[8, 16]


SITES = (
    Site(
        name="synthetic-a",
        aspect=1.0,
        gamma=(0.85, 1.05),
        grain=0.012,
        dicom_share=0.2,
        monochrome1_share=0.0,
        png_bits=8,
    ),
    Site(
        name="synthetic-b",
        aspect=1.125,
        gamma=(1.0, 1.25),
        grain=0.02,
        dicom_share=0.7,
        monochrome1_share=0.4,
        png_bits=16,
    ),
)


@dataclass(frozen=True, kw_only=True)
class Header:
    """The content of a DICOM header; all of it invented."""

    patient_id: str
    sex: str
    age: int
    view: str
    region: Literal["chest", "limb"]
    number: int
    """The image's number within the patient, from 1."""


def expose(
    rng: np.random.Generator, image_HW: np.ndarray, site: Site, noise: float, drift: float
) -> np.ndarray:
    """Turn attenuation into 12-bit grey values, 0 = air, as the site's detector gives them.

    Args:
        noise: multiplies the quantum noise.
        drift: how far the machine has wandered: darker mid-tones, scattered haze and less contrast.
    """
    low, high = float(image_HW.min()), float(image_HW.max())
    curve = np.linspace(0, 1, 4096, dtype=np.float32) ** np.float32(rng.uniform(*site.gamma) * np.exp(drift))
    light_HW = curve[((image_HW - low) * (4095 / (high - low))).astype(np.uint16)]
    tilt_HW = cloud(rng, image_HW.shape, 2)
    light_HW = (rng.uniform(0.7, 0.9) - 0.3 * drift) * light_HW + rng.uniform(0.02, 0.1)
    light_HW += np.float32(0.02 + 0.03 * drift) * tilt_HW
    light_HW += np.float32(site.grain * noise) * rng.standard_normal(image_HW.shape, np.float32)
    return (np.clip(light_HW, 0, 1) * 4095).astype(np.uint16)


def burn_in(grey_HW: np.ndarray, slot: int, slots: int) -> None:
    """Write SYNTHETIC at the foot, and one round side marker at the head in one of `slots` places."""
    height, width = grey_HW.shape
    label = Image.new("L", (56, 11))
    ImageDraw.Draw(label).text((0, 0), "SYNTHETIC", fill=255, font=ImageFont.load_default_imagefont())
    mark_HW = np.asarray(label)[: min(11, height), : min(56, width)] > 127
    foot = grey_HW[height - mark_HW.shape[0] :, : mark_HW.shape[1]]
    foot[mark_HW] = 3000
    size = max(3, width // 32)
    left = round((slot + 0.5) * width / slots - size / 2)
    grey_HW[2 : 2 + size, left : left + size] = 3600


def png(grey_HW: np.ndarray, site: Site) -> bytes:
    """Encode 8 bits, or 16 of which 12 are used, as the site's archive exports."""
    values_HW = (grey_HW >> 4).astype(np.uint8) if site.png_bits == 8 else grey_HW
    info = PngInfo()
    info.add_text("Description", NOTICE)
    file = io.BytesIO()
    Image.fromarray(values_HW).save(file, "PNG", compress_level=1, pnginfo=info)
    return file.getvalue()


def dicom(rng: np.random.Generator, grey_HW: np.ndarray, site: Site, header: Header) -> bytes:
    """Encode a 12-bit digital radiograph; the UIDs follow from the patient, so the same seed repeats them."""
    inverted = rng.random() < site.monochrome1_share
    instance = _uid(header.patient_id, str(header.number))
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = DigitalXRayImageStorageForPresentation
    meta.MediaStorageSOPInstanceUID = instance
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    file = io.BytesIO()
    data = FileDataset(file, {}, file_meta=meta, preamble=b"\0" * 128)
    data.SOPClassUID, data.SOPInstanceUID = meta.MediaStorageSOPClassUID, instance
    data.StudyInstanceUID = _uid(header.patient_id, "study")
    data.SeriesInstanceUID = _uid(header.patient_id, "series")
    data.ImageType, data.Modality = ["DERIVED", "PRIMARY"], "DX"
    data.Manufacturer, data.InstitutionName = "SYNTHETIC", site.name.upper()
    data.PatientName, data.PatientID = f"SYNTHETIC^{header.patient_id.upper()}", header.patient_id.upper()
    data.PatientSex, data.PatientAge = header.sex, f"{header.age:03d}Y"
    data.BodyPartExamined = "CHEST" if header.region == "chest" else "EXTREMITY"
    data.ViewPosition, data.InstanceNumber, data.ImageComments = header.view, header.number, NOTICE
    data.SamplesPerPixel, data.PixelRepresentation = 1, 0
    data.PhotometricInterpretation = "MONOCHROME1" if inverted else "MONOCHROME2"
    data.Rows, data.Columns = grey_HW.shape
    data.BitsAllocated, data.BitsStored, data.HighBit = 16, 12, 11
    stored_HW = 4095 - grey_HW if inverted else grey_HW
    data.PixelData = stored_HW.astype("<u2").tobytes()
    pydicom.dcmwrite(file, data, enforce_file_format=True)
    return file.getvalue()


def _uid(*parts: str) -> UID:
    """Derive a UUID-derived UID (DICOM PS3.5 B.2) from a hash of its parts."""
    digest = hashlib.sha256("/".join(("raydiology synthetic", *parts)).encode()).digest()
    return UID(f"2.25.{int.from_bytes(digest[:15], 'big')}")
