"""COVID-QU-Ex: two parts (lung and infection segmentation), each in splits, classes, images and masks.

The infection part is a subset of the lung part; `ingest` keeps one row of a file that is in both. Part of the
COVID files keep BIMCV's name, which tells patient and view.
"""

import re
from pathlib import Path

from data.sources import layout
from data.sources.dataset_card import Card, kaggle_download
from data.sources.manifest import Manifest

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
    layout=(
        "{Lung,Infection} Segmentation Data/{Train,Val,Test}/{COVID-19,Non-COVID,Normal}/{images,lung masks,"
        "infection masks}; one part is enough"
    ),
    labels={"COVID-19": "covid19", "Non-COVID": "lung_opacity", "Normal": "normal"},
    downloads=(
        kaggle_download(
            "anasmohammedtahir/covidqu",
            version=7,
            name="covid-qu-ex",
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
    """List the images; see `data.sources.registry.Source`."""
    listing = layout.Listing.find(
        CARD,
        folder,
        lambda inside_root: any(_splits_folder(inside_root, part) for part in PARTS),
        f"no folder in it holds {' or '.join(PARTS)} with Train, Val and Test",
    )
    for part in PARTS:
        inside = _splits_folder(listing.root, part)
        if inside is None:
            listing.notes.append(f"{part} is not there")
            continue
        for split, classes in layout.class_folders(CARD, inside, SPLITS).items():
            for name, files in layout.class_folders(CARD, classes, tuple(CARD.labels)).items():
                _add(listing, name, files, part=part.split()[0].lower(), split=split.lower())
    return listing.done()


def _splits_folder(root: Path, part: str) -> Path | None:
    """Return the folder of a part that holds the splits: the archive nests it in another one of the same name."""
    outer = layout.inner(root, part)
    nested = outer and layout.inner(outer, part)
    return next(
        (candidate for candidate in (nested, outer) if candidate and layout.inner(candidate, "Train")), None
    )


def _add(listing: layout.Listing, name: str, files: Path, *, part: str, split: str) -> None:
    images = layout.class_folders(CARD, files, ("images",), besides=MASKS)["images"]
    for file in layout.images(CARD, images):
        match = SUBJECT.match(file.stem)
        listing.add(
            file,
            name,
            patient_id=match["subject"] if match else None,
            view=match["view"].upper() if match else None,
            further={"published_split": split, "part": part},
        )
