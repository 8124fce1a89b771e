"""Every adapter on a miniature of its published layout, and the one line with which it refuses another."""

import shutil
from pathlib import Path

import pytest

from data.downloads import archives
from data.sources import manifest, registry
from data.sources.manifest import ManifestError
from tests.data.sources.listings import Miniature, listing

NAMES = tuple(registry.SOURCES)
PUBLISHED = tuple(name for name in NAMES if registry.SOURCES[name].CARD.downloads)


@pytest.mark.parametrize("name", NAMES)
def test_every_source_lists_its_miniature_in_the_same_order_each_time(
    name: str, miniature: Miniature, tmp_path: Path
) -> None:
    folder = miniature(name, tmp_path / "set")
    first, again = listing(name, folder), listing(name, folder)
    assert [row.path for row in first.rows] == [row.path for row in again.rows]
    assert len({row.path for row in first.rows}) == len(first.rows)
    assert all(row.license for row in first.rows)
    assert not any(
        part in row.path for row in first.rows for part in ("MACOSX", "Thumbs", "mask", "DS_Store")
    )
    assert first.by_hand == (name == "dicom-folder")
    assert first.public_paths == (name in PUBLISHED)


def test_zipped_splits_are_unpacked_for_every_source(miniature: Miniature, tmp_path: Path) -> None:
    found = listing("class-folders", miniature("class-folders", tmp_path / "own"))
    assert {(row.label, row.further["published_split"]) for row in found.rows} == {
        ("normal", "train"),
        ("tuberculosis", "train"),
        ("normal", "val"),
        ("bone_normal", "test"),
    }
    root = miniature("bone-fracture", tmp_path / "set") / "BoneFractureYolo8"
    plain = listing("bone-fracture", root)
    for split in ("train", "valid", "test"):
        shutil.make_archive(str(root / split), "zip", root, split)
        shutil.rmtree(root / split)
    zipped = listing("bone-fracture", root)
    assert [(row.path, row.label) for row in zipped.rows] == [(row.path, row.label) for row in plain.rows]


def test_a_manifest_beside_zipped_splits_is_read_as_if_they_were_folders(
    miniature: Miniature, tmp_path: Path
) -> None:
    folder = miniature("class-folders", tmp_path / "own")
    header = "path,label,source,patient_id,sex,age,view,license,sha256"
    (folder / "manifest.csv").write_text(f"{header}\ntrain/normal/a.png,normal,clinic,p1,,,,CC0-1.0,\n")
    (tmp_path / "scratch").mkdir()
    (row,) = manifest.read(archives.with_splits(folder, tmp_path / "scratch")).rows
    assert row.file.read_bytes().startswith(b"\x89PNG")


def test_an_unknown_source_brings_the_list() -> None:
    with pytest.raises(
        ManifestError, match=r"'kermany'; the sources are synthetic, kermany-pneumonia, .*class-folders"
    ):
        registry.find("kermany")
