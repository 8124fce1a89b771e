"""Bone Fracture Detection: a YOLO export with `data.yaml`, images and one label file an image.

An image with an outline of a fracture is a fracture, one with an empty label file is none; the outlines become
boxes in the row's metadata. The export holds three altered copies of each training image, which share a patient.
"""

import json
import math
from pathlib import Path
from typing import Any

import yaml

from data.sources import layout
from data.sources.dataset_card import Card, kaggle_download
from data.sources.manifest import Manifest

NOTHING = "no annotation"
CARD = Card(
    name="bone-fracture",
    title="Bone Fracture Detection: Computer Vision Project",
    license="CC BY 4.0 (Roboflow Universe, veda, bone-fracture-detection-daoon, version 4)",
    conditions="Any use, also commercial, with attribution; where the films themselves came from is not published.",
    citation=(
        "veda: bone fracture detection Dataset, Roboflow Universe, "
        "https://universe.roboflow.com/veda/bone-fracture-detection-daoon; Darabi: Bone Fracture Detection: "
        "Computer Vision Project, Kaggle"
    ),
    homepage="https://www.kaggle.com/datasets/pkdarabi/bone-fracture-detection-computer-vision-project",
    layout="data.yaml and {train,valid,test}/{images,labels}",
    labels={
        "elbow positive": "bone_fracture",
        "fingers positive": "bone_fracture",
        "forearm fracture": "bone_fracture",
        "humerus fracture": "bone_fracture",
        "humerus": "bone_fracture",
        "shoulder fracture": "bone_fracture",
        "wrist positive": "bone_fracture",
        NOTHING: "bone_normal",
    },
    downloads=(
        kaggle_download(
            "pkdarabi/bone-fracture-detection-computer-vision-project", version=2, name="bone-fracture"
        ),
    ),
)
SPLITS = ("train", "valid", "test")
SLACK = 0.01
"""An outline drawn to the very edge may lie this share of the image beyond it; it is cut off there."""
MAX_TEXT_BYTES = 2**20
"""Of data.yaml and of a label file; published ones have a few kilobytes."""


def list_images(folder: Path) -> Manifest:
    """List the images; see `data.sources.registry.Source`. A malformed label line refuses the folder, too."""
    listing = layout.Listing.find(
        CARD,
        folder,
        lambda inside: (inside / "data.yaml").is_file() and layout.inner(inside, "train") is not None,
        "no folder in it holds data.yaml and train",
    )
    root = listing.root
    names = _class_names(root)
    unlabelled = 0
    for split, inside in layout.class_folders(CARD, root, SPLITS).items():
        parts = layout.class_folders(CARD, inside, ("images", "labels"))
        for file in layout.images(CARD, parts["images"]):
            label_file = parts["labels"] / f"{file.stem}.txt"
            if not label_file.is_file():
                unlabelled += 1
                continue
            _add(listing, file, _regions(root, label_file, names), split)
    if unlabelled:
        listing.notes.append(
            f"images without a label file, left out because nobody knows their label: {unlabelled}"
        )
    return listing.done()


def _add(listing: layout.Listing, file: Path, regions: list[dict[str, Any]], split: str) -> None:
    classes = sorted({region["class"] for region in regions})
    listing.add(
        file,
        classes[0] if classes else NOTHING,
        source_label="; ".join(classes) or NOTHING,
        patient_id=file.name.partition(".rf.")[0] if ".rf." in file.name else file.stem,
        further={
            "published_split": split,
            "boxes": json.dumps(regions, separators=(",", ":")) if regions else "",
        },
    )


def _class_names(root: Path) -> list[str]:
    """Read the names in data.yaml, in the order of their numbers."""
    try:
        listed = yaml.safe_load(_text(root, root / "data.yaml"))
        names = listed["names"]
        names = [names[number] for number in sorted(names)] if isinstance(names, dict) else list(names)
    except (yaml.YAMLError, KeyError, TypeError) as error:
        raise layout.refused(CARD, root, "data.yaml lists no class names under `names`") from error
    if strange := [str(name) for name in names if name not in CARD.labels]:
        known = ", ".join(name for name in CARD.labels if name != NOTHING)
        raise layout.refused(
            CARD, root, f"data.yaml names a class {strange[0]!r}, and the known ones are {known}"
        )
    return names


def _regions(root: Path, label_file: Path, names: list[str]) -> list[dict[str, Any]]:
    """Parse class and box (left, top, right, bottom as shares of the image) of each line of a label file.

    A line is `class x y width height`, or `class x1 y1 x2 y2 ...` for an outline.
    Source: Ultralytics' detection and segmentation label formats.
    """
    regions = []
    for number, line in enumerate(_text(root, label_file).splitlines(), start=1):
        if not line.strip():
            continue
        box = _box(line.split()[1:])
        name = _named(line.split()[0], names)
        if box is None or name is None:
            where = f"{label_file.relative_to(root).as_posix()} line {number}"
            raise layout.refused(
                CARD, root, f"{where} is no label: a class number and coordinates within 0..1"
            )
        regions.append({"class": name, "box": box})
    return regions


def _named(text: str, names: list[str]) -> str | None:
    return names[int(text)] if text.isascii() and text.isdigit() and int(text) < len(names) else None


def _box(texts: list[str]) -> list[float] | None:
    """Return the box around what the numbers describe, None when they describe nothing."""
    try:
        numbers = [float(text) for text in texts]
    except ValueError:
        return None
    if not all(map(math.isfinite, numbers)):
        return None
    if len(numbers) == 4:
        x, y, width, height = numbers
        xs, ys = [x - width / 2, x + width / 2], [y - height / 2, y + height / 2]
    elif len(numbers) >= 6 and len(numbers) % 2 == 0:
        xs, ys = numbers[::2], numbers[1::2]
    else:
        return None
    if min(*xs, *ys) < -SLACK or max(*xs, *ys) > 1 + SLACK:
        return None
    return [round(min(max(value, 0), 1), 4) for value in (min(xs), min(ys), max(xs), max(ys))]


def _text(root: Path, file: Path) -> str:
    with file.open("rb") as stream:
        blob = stream.read(MAX_TEXT_BYTES + 1)
    if len(blob) > MAX_TEXT_BYTES:
        raise layout.refused(CARD, root, f"{file.name} is larger than {MAX_TEXT_BYTES} bytes")
    try:
        return blob.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise layout.refused(CARD, root, f"{file.name} is not UTF-8 text") from error
