"""The files and the manifest of a drawn data set."""

import hashlib
import io
from pathlib import Path

import pydicom
import pytest
from PIL import Image

from data.imaging.preprocess import decode
from data.synthetic.generator import (
    COLUMNS,
    SyntheticConfig,
    generate,
)
from tests.data.synthetic.drawn import SMALL, rows_of


def test_the_manifest_has_its_columns_and_every_row_its_file(folder: Path) -> None:
    rows = rows_of(folder)
    assert tuple(rows[0]) == COLUMNS
    assert len(rows) == SMALL.images
    for row in rows:
        assert hashlib.sha256((folder / row["path"]).read_bytes()).hexdigest() == row["sha256"]
        assert (row["license"], row["synthetic"]) == ("CC0-1.0", "true")
        assert row["source"].startswith("synthetic-")


def test_both_file_types_both_monochromes_and_both_matrix_sizes_occur(folder: Path) -> None:
    files = [folder / row["path"] for row in rows_of(folder)]
    assert {path.suffix for path in files} == {".png", ".dcm"}
    photometric = {
        pydicom.dcmread(path, stop_before_pixels=True).PhotometricInterpretation
        for path in files
        if path.suffix == ".dcm"
    }
    assert photometric == {"MONOCHROME1", "MONOCHROME2"}
    assert {decode(path.read_bytes()).height for path in files} == {64, 72}


def test_every_file_says_that_it_is_synthetic(folder: Path) -> None:
    for row in rows_of(folder):
        blob = (folder / row["path"]).read_bytes()
        if row["path"].endswith(".png"):
            with Image.open(io.BytesIO(blob)) as image:
                assert image.info["Description"].startswith("SYNTHETIC")
        else:
            header = pydicom.dcmread(io.BytesIO(blob), stop_before_pixels=True)
            assert str(header.PatientName).startswith("SYNTHETIC^")
            assert header.ImageComments.startswith("SYNTHETIC")


def test_without_a_folder_to_write_there_is_an_error_and_no_manifest(tmp_path: Path) -> None:
    (tmp_path / "images").write_text("in the way")
    with pytest.raises(OSError):
        generate(SMALL, tmp_path)
    assert not (tmp_path / "manifest.csv").exists()


def test_files_of_others_in_the_folder_stay(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    generate(SyntheticConfig(images=10, side=64), tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"
