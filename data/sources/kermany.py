"""Chest X-Ray Images (Pneumonia): children from Guangzhou, in splits and two class folders.

The cause is in the file's name. Kaggle's copy calls files `person1_bacteria_1.jpeg` and `IM-0115-0001.jpeg`, the
publisher's version 3 `BACTERIA-1008087-0001.jpeg`; both are read. Persons are counted from 1 anew in `test`.
"""

import re
from pathlib import Path

from data.sources import layout
from data.sources.dataset_card import Card, Download
from data.sources.manifest import Manifest

CARD = Card(
    name="kermany-pneumonia",
    title="Chest X-Ray Images (Pneumonia)",
    license="CC BY 4.0 (Kermany et al., Mendeley Data, doi 10.17632/rscbjbr9sj)",
    conditions="Any use, also commercial, with attribution and a note of what was changed.",
    citation=(
        "Kermany, Zhang, Goldbaum: Labeled Optical Coherence Tomography (OCT) and Chest X-Ray Images for "
        "Classification, Mendeley Data, V2, 2018, doi 10.17632/rscbjbr9sj.2; Kermany et al., Cell 172(5), 2018"
    ),
    homepage="https://data.mendeley.com/datasets/rscbjbr9sj/2",
    layout="chest_xray/{train,test,val}/{NORMAL,PNEUMONIA}, where val may be missing",
    labels={"normal": "normal", "bacteria": "bacterial_pneumonia", "virus": "viral_pneumonia"},
    downloads=(
        Download(
            url=(
                "https://data.mendeley.com/public-files/datasets/rscbjbr9sj/files/"
                "f12eaf6d-6023-432f-acc9-80c9d7393433/file_downloaded"
            ),
            page="https://data.mendeley.com/datasets/rscbjbr9sj/2",
            file_name="ChestXRay2017.zip",
            access="open",
        ),
    ),
)
SPLITS = ("train", "val", "test")
CLASSES = ("NORMAL", "PNEUMONIA")
CAUSE = re.compile(r"person(?P<person>\d+)_(?P<cause>bacteria|virus)_\d+")
STUDY = re.compile(r"(?P<study>(?:NORMAL2-)?IM-\d+)-\d+")
NUMBERED = re.compile(r"(?P<cause>BACTERIA|VIRUS|NORMAL)-(?P<person>\d+)-\d+", re.IGNORECASE)
AGE_RANGE_YEARS = (1, 5)


def list_images(folder: Path) -> Manifest:
    """List the images; see `data.sources.registry.Source`."""
    listing = layout.Listing.find(
        CARD, folder, _fits, "no folder in it holds train and test with NORMAL and PNEUMONIA"
    )
    root = listing.root
    published = [split for split in SPLITS if split != "val" or layout.inner(root, "val")]
    splits = layout.class_folders(CARD, root, published, besides=("chest_xray",))
    if layout.inner(root, "chest_xray"):
        listing.notes.append("chest_xray/chest_xray, a second copy of the set, was not read")
    for split, inside in splits.items():
        for name, images in layout.class_folders(CARD, inside, CLASSES).items():
            for file in layout.images(CARD, images):
                label, patient = _told_by(file.stem, split)
                if (label == "normal") != (name == "NORMAL"):
                    says = f"{file.name} in {split}/{name} does not name a cause that belongs there"
                    raise layout.refused(CARD, root, says)
                listing.add(
                    file,
                    label,
                    patient_id=patient,
                    age_range_years=AGE_RANGE_YEARS,
                    view="AP",
                    further={"published_split": split},
                )
    return listing.done()


def _fits(folder: Path) -> bool:
    """Tell whether a folder has train and test with a class folder; the rest is judged with a better message."""
    inside = [layout.inner(folder, split) for split in ("train", "test")]
    return all(
        split_folder and any(layout.inner(split_folder, name) for name in CLASSES) for split_folder in inside
    )


def _told_by(stem: str, split: str) -> tuple[str, str | None]:
    """Parse label and patient from a file's name; a name of no known form is normal, of an unknown patient."""
    if match := CAUSE.match(stem):
        return match["cause"], f"{'test' if split == 'test' else 'train'}-person{match['person']}"
    if match := NUMBERED.match(stem):
        return match["cause"].lower(), f"number-{match['person']}"
    if match := STUDY.match(stem):
        return "normal", match["study"]
    return "normal", None
