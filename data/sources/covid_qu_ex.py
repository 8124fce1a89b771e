"""COVID-QU-Ex: two parts (lung and infection segmentation), each in splits, classes, images and masks.

The infection part is a subset of the lung part; `ingest` keeps one row of a file that is in both. Part of the
COVID files keep BIMCV's name, which tells patient and view.
"""

import re
from pathlib import Path

from data.manifest import Manifest
from data.sources import layout
from data.sources.card import Card, Download

CARD = Card(
    name="covid-qu-ex",
    title="COVID-QU-Ex Dataset",
    license="CC BY-SA 4.0 as Kaggle lists it; images remain under the terms of their collections",
    conditions=(
        "Attribution and share-alike for the compilation and its masks; each image stays under the terms of the "
        "collection that it was taken from. Research use with the citations; do not pass the images on."
    ),
    citation=(
        "Tahir et al.: COVID-19 Infection Localization and Severity Grading from Chest X-ray Images, Computers "
        "in Biology and Medicine 139, 2021, 105002; Tahir et al.: COVID-QU-Ex, Kaggle, 2021, "
        "doi 10.34740/kaggle/dsv/3122958"
    ),
    homepage="https://www.kaggle.com/datasets/anasmohammedtahir/covidqu",
    creation=(
        "Compiled by Qatar University: 11,956 COVID-19, 11,263 other pneumonias (viral or bacterial) and 10,701 "
        "normal films from public collections; lung masks drawn by people and networks in turn."
    ),
    layout=(
        "{Lung,Infection} Segmentation Data/{Train,Val,Test}/{COVID-19,Non-COVID,Normal}/{images,lung masks,"
        "infection masks}; one part is enough"
    ),
    labels={"COVID-19": "covid19", "Non-COVID": "lung_opacity", "Normal": "normal"},
    patient_rule=(
        "BIMCV's subject (sub-S03047) in the file's name where it is kept; else none is published, and every "
        "image counts as a patient of its own."
    ),
    demographics="View AP or PA where BIMCV's file name tells it; sex and age unknown.",
    defects=(
        "Non-COVID is `viral or bacterial pneumonia` without a word which: it becomes lung_opacity, the class for "
        "an infiltrate of unknown cause; either pneumonia would be a guess, and other_lung says something else.",
        "The class is bound to the collection that the film came from.",
        "All images are 256 x 256 PNG, whatever they were before.",
        "Thousands of near-duplicates are among the images, across the published splits too.",
        "The infection part repeats 5,826 images of the lung part.",
    ),
    overlaps=("kermany-pneumonia", "covid-radiography", "tb-chest"),
    downloads=(
        Download(
            url=(
                "https://www.kaggle.com/api/v1/datasets/download/anasmohammedtahir/covidqu?datasetVersionNumber=7"
            ),
            page="https://www.kaggle.com/datasets/anasmohammedtahir/covidqu",
            file_name="covid-qu-ex-7.zip",
            access="kaggle",
            # From a public record of a download of this version; the publisher names none.
            sha256="2a91b372cdd104d05d472f79dc446dc9bb7e3ccc26f513cf971f64cabc151333",
        ),
    ),
)
PARTS = ("Infection Segmentation Data", "Lung Segmentation Data")
SPLITS = ("Train", "Val", "Test")
MASKS = ("lung masks", "infection masks")
SUBJECT = re.compile(r"(?P<subject>sub-S\d+)_.*_vp-(?P<view>ap|pa|ll)_", re.IGNORECASE)


def list_images(folder: Path) -> Manifest:
    """Raises LayoutError."""
    root, copies = layout.find_root(
        CARD,
        folder,
        lambda one: any(_splits_folder(one, part) for part in PARTS),
        f"no folder in it holds {' or '.join(PARTS)} with Train, Val and Test",
    )
    listing = layout.Listing(CARD, root, notes=copies)
    for part in PARTS:
        inside = _splits_folder(root, part)
        if inside is None:
            listing.notes.append(f"{part} is not there")
            continue
        for split, classes in layout.class_folders(CARD, inside, SPLITS).items():
            for name, files in layout.class_folders(CARD, classes, tuple(CARD.labels)).items():
                _add(listing, name, files, part=part.split()[0].lower(), split=split.lower())
    return listing.done()


def _splits_folder(root: Path, part: str) -> Path | None:
    """The folder of a part that holds the splits: the archive nests it in another one of the same name."""
    outer = layout.inner(root, part)
    nested = outer and layout.inner(outer, part)
    return next((one for one in (nested, outer) if one and layout.inner(one, "Train")), None)


def _add(listing: layout.Listing, name: str, files: Path, *, part: str, split: str) -> None:
    images = layout.class_folders(CARD, files, ("images",), besides=MASKS)["images"]
    for file in layout.images(CARD, images):
        told = SUBJECT.match(file.stem)
        listing.add(
            file,
            name,
            patient_id=told["subject"] if told else None,
            view=told["view"].upper() if told else None,
            further={"published_split": split, "part": part},
        )
