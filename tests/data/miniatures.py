"""Miniatures of the published datasets: their folders and names, with the defects that they really have.

`write(NAME, folder)` makes one; the fixture `miniature` brings it to every tier. The layouts were held against what
the datasets' pages and readers of them say (docs/data.md). Each image is noise of its own, so that no two are alike.
"""

import io
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import openpyxl
import pydicom
from PIL import Image
from pydicom.config import disable_value_validation
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MediaStorageDirectoryStorage

SIDE = 40
RF = "831cb137cfcbde1079f86abd5f5f2867"
BIMCV = "sub-S09345_ses-E18215_run-1_bp-chest_vp-ap_dx"


def image(file: Path, seed: str | None = None) -> Path:
    """One PNG or JPEG, by the file's suffix; its pixels follow from its path, or from `seed`."""
    rng = np.random.default_rng(zlib.crc32((seed or file.as_posix()).encode()))
    pixels_HW = rng.integers(0, 256, (SIDE, SIDE), np.uint8)
    file.parent.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    Image.fromarray(pixels_HW).save(buffer, "png" if file.suffix.lower() == ".png" else "jpeg")
    file.write_bytes(buffer.getvalue())
    return file


def sheet(file: Path, rows: list[tuple[str, str]], size: str) -> Path:
    """A metadata sheet with the published columns."""
    book = openpyxl.Workbook()
    page = book.active
    assert page is not None
    page.append(["FILE NAME", "FORMAT", "SIZE", "URL"])
    for name, url in rows:
        page.append([name, "PNG", size, url])
    book.save(file)
    return file


def junk(folder: Path) -> None:
    """What macOS and Windows leave."""
    (folder / "__MACOSX" / "train").mkdir(parents=True)
    (folder / "__MACOSX" / "train" / "._person1_bacteria_1.jpeg").write_bytes(b"\x00\x05\x16\x07")
    (folder / ".DS_Store").write_bytes(b"\x00\x00\x00\x01Bud1")
    (folder / "Thumbs.db").write_bytes(b"\xd0\xcf\x11\xe0")


def kermany(folder: Path) -> None:
    """Person 1 is in train and in test and is not the same child; the set is packed into itself once more."""
    names = {
        "train/NORMAL": ("IM-0115-0001.jpeg", "IM-0115-0002.jpeg", "NORMAL2-IM-0383-0001.jpeg"),
        "train/PNEUMONIA": ("person1_bacteria_1.jpeg", "person1_bacteria_2.jpeg", "person3_virus_15.JPEG"),
        "test/NORMAL": ("IM-0001-0001.jpeg", "NORMAL2-IM-0329-0001.jpeg"),
        "test/PNEUMONIA": ("person1_virus_6.jpeg", "person78_bacteria_378.jpeg"),
        "val/NORMAL": ("NORMAL2-IM-1427-0001.jpeg",),
        "val/PNEUMONIA": ("person1946_bacteria_4874.jpeg",),
    }
    for root in ("chest_xray", "chest_xray/chest_xray"):
        for inside, files in names.items():
            for name in files:
                image(folder / root / inside / name, seed=f"{inside}/{name}")
            (folder / root / inside / ".DS_Store").write_bytes(b"Bud1")
    junk(folder / "chest_xray")


def covid_radiography(folder: Path) -> None:
    """Masks called like their images, sheets in another case, one image lost, one that no sheet names."""
    root = folder / "COVID-19_Radiography_Dataset"
    urls = {
        "COVID": "https://sirm.org/category/senza-categoria/covid-19/",
        "Lung_Opacity": "https://www.kaggle.com/c/rsna-pneumonia-detection-challenge/data",
        "Normal": "https://www.kaggle.com/c/rsna-pneumonia-detection-challenge/data",
        "Viral Pneumonia": "https://www.kaggle.com/paultimothymooney/chest-xray-pneumonia",
    }
    for name, url in urls.items():
        for number in (1, 2, 3):
            image(root / name / "images" / f"{name}-{number}.png")
            image(root / name / "masks" / f"{name}-{number}.png")
        written = "NORMAL" if name == "Normal" else name
        sheet(
            root / f"{name}.metadata.xlsx",
            [(f"{written}-{number}", url) for number in (1, 2, 3)],
            "256*256",
        )
    (root / "COVID" / "images" / "COVID-3.png").unlink()
    image(root / "Normal" / "images" / "Normal-10192.PNG")
    (root / "Normal" / "images" / "Thumbs.db").write_bytes(b"\xd0\xcf\x11\xe0")
    (root / "README.md.txt").write_text("*****COVID-19 CHEST X-RAY DATABASE\n")
    junk(folder)


def tb_chest(folder: Path) -> None:
    root = folder / "TB_Chest_Radiography_Database"
    for name in ("Normal", "Tuberculosis"):
        for number in (1, 2, 3):
            image(root / name / f"{name}-{number}.png")
        sheet(
            root / f"{name}.metadata.xlsx",
            [(f"{name}-{n}", "https://niaid.nih.gov") for n in (1, 2, 4)],
            "512*512",
        )
    (root / "README.md.txt").write_text("*****Tuberculosis (TB) CHEST X-RAY DATABASE\n")


def covid_qu_ex(folder: Path) -> None:
    """Both parts nested in folders of their own name; the infection part repeats files of the lung part."""
    names = {
        "COVID-19": ("covid_1.png", f"{BIMCV}.png"),
        "Non-COVID": ("non_COVID (1).png", "non_COVID (2).png"),
        "Normal": ("Normal (1).png", "Normal (2).png"),
    }
    for part in ("Lung Segmentation Data", "Infection Segmentation Data"):
        for split in ("Train", "Val", "Test"):
            for label, files in names.items():
                root = folder / part / part / split / label
                for name in files[: 2 if part.startswith("Lung") else 1]:
                    image(root / "images" / f"{split} {name}" if "sub-" not in name else root / "images" / name,
                          seed=f"{split}/{name}")  # fmt: skip
                    image(root / "lung masks" / name)
                    if part.startswith("Infection"):
                        image(root / "infection masks" / name)


def bone_fracture(folder: Path) -> None:
    """Three copies of a training image, polygons and boxes, empty label files, one image without one."""
    root = folder / "BoneFractureYolo8"
    classes = (
        *("elbow positive", "fingers positive", "forearm fracture", "humerus fracture"),
        *("humerus", "shoulder fracture", "wrist positive"),
    )
    texts = {
        "train/image1_134_png": "6 0.25 0.25 0.5 0.25 0.5 0.75 0.25 0.75\n1 0.5 0.5 0.2 0.2\n",
        "train/image1_10_png": "4 0.1 0.2 0.3 0.2 0.3 0.4 1.004 0.4",
        "train/image2_7_png": "",
        "valid/distal-humerus-fracture-1_jpg": "3 0.5 0.5 1 1\n",
        "valid/image3_1_png": "\n",
        "test/image1_220_png": "2 0.5 0.5 0.25 0.25\n",
    }
    for path, text in texts.items():
        split, name = path.split("/")
        for copy in range(3 if split == "train" else 1):
            stem = f"{name}.rf.{copy}{RF[1:]}"
            image(root / split / "images" / f"{stem}.jpg")
            (root / split / "labels").mkdir(exist_ok=True)
            (root / split / "labels" / f"{stem}.txt").write_text(text)
    image(root / "train" / "images" / f"image9_9_png.rf.{RF}.jpg")
    listed = ", ".join(f"'{name}'" for name in classes)
    (root / "data.yaml").write_text(
        f"train: ../train/images\nval: ../valid/images\ntest: ../test/images\n\nnc: 7\nnames: [{listed}]\n\n"
        "roboflow:\n  workspace: veda\n  project: bone-fracture-detection-daoon\n  version: 4\n  license: CC BY 4.0\n"
    )
    (root / "README.roboflow.txt").write_text("bone fracture detection - v4 v4\n")


def dicom(file: Path, **tags: Any) -> Path:
    """One small DICOM file; `tags` by keyword."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = tags.pop("MediaStorageSOPClassUID", "1.2.840.10008.5.1.4.1.1.1.1")
    meta.MediaStorageSOPInstanceUID = tags.get("SOPInstanceUID", "1.2.3")
    pixels_HW = np.random.default_rng(zlib.crc32(file.as_posix().encode())).integers(
        0, 4096, (SIDE, SIDE), np.uint16
    )
    made = Dataset()
    made.file_meta = meta
    for name, value in {
        **{"Modality": "DX", "PhotometricInterpretation": "MONOCHROME2", "SamplesPerPixel": 1},
        **{"Rows": SIDE, "Columns": SIDE, "BitsAllocated": 16, "BitsStored": 12, "HighBit": 11},
        **{"PixelRepresentation": 0, "PatientName": "Doe^Jane", "PixelData": pixels_HW.tobytes()},
        **tags,
    }.items():
        with disable_value_validation():  # devices write what they like
            setattr(made, name, value)
    file.parent.mkdir(parents=True, exist_ok=True)
    with disable_value_validation():
        pydicom.dcmwrite(file, made, enforce_file_format=True)
    return file


def dicom_folder(folder: Path) -> None:
    """A folder for each patient, a DICOMDIR, a broken header, a report, and labels by UID and by path."""
    jane = {"PatientID": "MRN-4711", "PatientSex": "F", "ViewPosition": "PA", "BodyPartExamined": "CHEST"}
    dicom(folder / "DOE_JANE" / "IM1", SOPInstanceUID="1.2.3.1", PatientAge="061Y", **jane)
    dicom(
        folder / "DOE_JANE" / "later" / "IM2.DCM",
        **{"SOPInstanceUID": "1.2.3.2", "PatientBirthDate": "19600229", "StudyDate": "20210228", **jane},
    )
    dicom(folder / "ROE" / "IM1", SOPInstanceUID="1.2.3.3", PatientSex="", PatientAge="sixty")
    dicom(folder / "DICOMDIR", MediaStorageSOPClassUID=MediaStorageDirectoryStorage)
    (folder / "ROE" / "cut.dcm").write_bytes(b"\x00" * 128 + b"DICM" + b"\x02\x00\x00\x00UL\x04\x00")
    (folder / "ROE" / "report.pdf").write_bytes(b"%PDF-1.4")
    (folder / "Thumbs.db").write_bytes(b"\xd0\xcf\x11\xe0")
    (folder / "labels.csv").write_text(
        "label,path,SOPInstanceUID,source,license\n"
        "tuberculosis,,1.2.3.1,clinic-a,ask us\n"
        "tuberculosis,DOE_JANE/later/IM2.DCM,,clinic-a,\n"
        "normal,,1.2.3.3,,\n"
        "normal,ROE/lost.dcm,,,\n"
        "normal,,1.2.3.99,,\n"
    )


def class_folders(folder: Path) -> None:
    """Zipped splits: one zip holds its own folder, another does not."""
    names = {
        "train.zip": ("train/normal/a.png", "train/Tuberculosis/b.PNG", "__MACOSX/train/normal/._a.png"),
        "val.zip": ("normal/c.jpg",),
        "test.zip": ("test/bone_no_fracture/d.jpeg", "test/normal/Thumbs.db"),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for archive, members in names.items():
        with zipfile.ZipFile(folder / archive, "w") as package:
            for member in members:
                known = member.lower().endswith((".png", ".jpg", ".jpeg")) and "._" not in member
                blob = (
                    image(folder / "draft" / Path(member).name, seed=member).read_bytes()
                    if known
                    else b"junk"
                )
                package.writestr(member, blob)
    for file in (folder / "draft").iterdir():
        file.unlink()
    (folder / "draft").rmdir()


WRITERS: dict[str, Callable[[Path], None]] = {
    "kermany-pneumonia": kermany,
    "covid-radiography": covid_radiography,
    "tb-chest": tb_chest,
    "covid-qu-ex": covid_qu_ex,
    "bone-fracture": bone_fracture,
    "dicom-folder": dicom_folder,
    "class-folders": class_folders,
}


def write(name: str, folder: Path) -> Path:
    """Make the miniature of one source; returns the folder that `--folder` takes."""
    WRITERS[name](folder)
    return folder
