"""A folder of DICOM files with or without labels.csv."""

import csv
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from data.sources.manifest import Manifest
from tests.data.sources.listings import Miniature, by_name, listing, refusal

ROOT = Path(__file__).resolve().parents[3]


XRAYS = ROOT.parent / "shared" / "data" / "xrays" / "dicom"


def test_dicom_headers_tell_the_patient_and_labels_csv_the_class(
    listed: Callable[[str], Manifest], caplog: pytest.LogCaptureFixture
) -> None:
    found = listed("dicom-folder")
    assert caplog.text == ""
    first, second, third, lost = found.rows
    assert (first.label, first.source, first.license, first.line) == ("tuberculosis", "clinic-a", "ask us", 2)
    assert (first.patient_id, first.sex, first.age_years, first.view) == ("MRN-4711", "F", 61.0, "PA")
    assert (second.patient_id, second.age_years, second.license) == ("MRN-4711", 60.0, "unknown")
    assert (third.patient_id, third.sex, third.age_years, third.source) == (None, None, None, "dicom-folder")
    assert first.further == {"modality": "DX", "body_part": "CHEST", "photometric": "MONOCHROME2"}
    assert not lost.file.exists()
    assert found.notes == (
        "files that are no DICOM images, not read: 2",
        "DICOM files without a readable UID or a row by path, left out: 1",
        "rows of labels.csv with a UID that no file has: 1",
    )
    assert found.where(first) == "line 2 of labels.csv"


def test_dicom_files_without_a_label_are_refused_and_nobody_is_named(
    miniature: Miniature, tmp_path: Path
) -> None:
    folder = miniature("dicom-folder", tmp_path / "set")
    text = (folder / "labels.csv").read_text()
    (folder / "labels.csv").write_text(text.replace("normal,,1.2.3.3,,\n", ""))
    message = refusal("dicom-folder", folder)
    assert "1 of 4 DICOM files in the folder have no row" in message
    (folder / "labels.csv").unlink()
    without = refusal("dicom-folder", folder)
    assert "there is no labels.csv" in without
    assert not any(secret in message + without for secret in ("Doe", "DOE", "MRN", "1.2.3.3"))


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("label\nnormal\n", "needs the columns label and path or sop_instance_uid"),
        ("label,path\nflu,DOE_JANE/IM1\n", "line 2: unknown label. Known labels"),
        ("label,path\nnormal,../x\n", "stay below its folder"),
        ("label,path\nnormal,\n", "neither a path nor a UID"),
        ("label,path\n,DOE_JANE/IM1\n", "no label"),
        ("label,path\nnormal,DOE_JANE/IM1\nnormal,./DOE_JANE/IM1\n", "the same file as line 2"),
        ('label,path\nnormal,"x\n', "no CSV"),
    ],
)
def test_a_labels_csv_that_is_wrong_is_refused_by_its_line(
    text: str, part: str, miniature: Miniature, tmp_path: Path
) -> None:
    folder = miniature("dicom-folder", tmp_path / "set")
    (folder / "labels.csv").write_text(text)
    assert part in refusal("dicom-folder", folder)


@pytest.mark.skipif(not XRAYS.exists(), reason="the real X-rays are not here")
def test_real_dicom_headers_tell_what_their_manifest_tells(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(XRAYS, tmp_path / "dicom")
    with (XRAYS / "manifest.csv").open(newline="") as file:
        told = list(csv.DictReader(file))
    lines = [f"{Path(row['path']).name},normal" for row in told]  # what they show is another matter
    (tmp_path / "dicom/labels.csv").write_text("\n".join(["path,label", *lines]))
    rows = by_name(listing("dicom-folder", tmp_path / "dicom"))
    assert len(rows) == len(told) == 20
    for row in told:
        found = rows[Path(row["path"]).name]
        assert (found.sex or "") == row["sex"], row["path"]
        assert row["view"] in (found.view or "", ""), row["path"]
    assert sum(row.patient_id is not None for row in rows.values()) >= 15
    assert caplog.text == ""
