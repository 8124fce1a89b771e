"""The bone fracture data set: boxes, copies of an image, and files that are not its own."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from data.sources.manifest import Manifest
from tests.data.sources.listings import Miniature, labels, listing, refusal


def test_bone_fracture_keeps_boxes_and_the_copies_of_an_image_together(
    listed: Callable[[str], Manifest],
) -> None:
    found = listed("bone-fracture")
    assert labels(found) == {"bone_fracture": 8, "bone_normal": 4}
    copies = [row for row in found.rows if "image1_134_png" in row.path]
    assert len(copies) == 3
    assert {row.patient_id for row in copies} == {"image1_134_png"}
    assert copies[0].source_label == "fingers positive; wrist positive"
    assert json.loads(copies[0].further["boxes"]) == [
        {"class": "wrist positive", "box": [0.25, 0.25, 0.5, 0.75]},
        {"class": "fingers positive", "box": [0.4, 0.4, 0.6, 0.6]},
    ]
    edge = next(row for row in found.rows if "image1_10_png" in row.path)
    assert json.loads(edge.further["boxes"])[0]["box"] == [0.1, 0.2, 1, 0.4]
    empty = [row for row in found.rows if row.label == "bone_normal"]
    assert all(row.source_label == "no annotation" and "boxes" not in row.further for row in empty)
    assert found.notes == ("images without a label file, left out because nobody knows their label: 1",)


@pytest.mark.parametrize(
    "line",
    [
        "7 0.5 0.5 0.1 0.1",
        "0 0.5 0.5",
        "0 0.5 nan 0.1 0.1",
        "0 0.5 0.5 1.5 0.1",
        "-1 0 0 0 0",
        "x",
        "0 a b c d",
    ],
)
def test_a_label_line_that_is_none_is_refused_with_its_place(
    line: str, miniature: Miniature, tmp_path: Path
) -> None:
    root = miniature("bone-fracture", tmp_path / "set") / "BoneFractureYolo8"
    file = next((root / "test/labels").iterdir())
    file.write_text(f"2 0.5 0.5 0.25 0.25\n{line}\n")
    assert f"{file.name} line 2 is no label" in refusal("bone-fracture", tmp_path / "set")


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("names: [elbow positive, tibia]", "'tibia'"),
        ("nc: 7", "no class names"),
        ("names: 7", "no class names"),
        ("[", "no class names"),
    ],
)
def test_a_data_yaml_that_is_another_is_refused(
    text: str, part: str, miniature: Miniature, tmp_path: Path
) -> None:
    root = miniature("bone-fracture", tmp_path / "set") / "BoneFractureYolo8"
    (root / "data.yaml").write_text(text)
    assert part in refusal("bone-fracture", tmp_path / "set")


def test_class_names_by_number_are_read_too(miniature: Miniature, tmp_path: Path) -> None:
    root = miniature("bone-fracture", tmp_path / "set") / "BoneFractureYolo8"
    (root / "data.yaml").write_text("names: {1: wrist positive, 0: elbow positive}")
    shutil.rmtree(root / "train/labels")
    (root / "train/labels").mkdir()
    for file in [*(root / "valid/labels").iterdir(), *(root / "test/labels").iterdir()]:
        file.write_text("1 0.5 0.5 0.1 0.1")
    assert {row.source_label for row in listing("bone-fracture", root).rows} == {"wrist positive"}
