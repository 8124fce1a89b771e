"""The COVID-19 Radiography Database: folders, masks and sheets."""

import shutil
from collections.abc import Callable
from pathlib import Path

from data.sources.manifest import Manifest
from tests.data.sources.listings import Miniature, by_name, labels, listing, refusal


def test_covid_radiography_leaves_masks_out_and_tells_where_sheets_and_folders_differ(
    listed: Callable[[str], Manifest],
) -> None:
    found = listed("covid-radiography")
    rows = by_name(found)
    assert labels(found) == {"covid19": 3, "lung_opacity": 3, "normal": 4, "viral_pneumonia": 3}
    lost = rows["COVID-3.png"]
    assert not lost.file.exists()
    assert rows["COVID-1.png"].further == {
        "origin": "sirm.org",
        "url": "https://sirm.org/category/senza-categoria/covid-19/",
    }
    assert rows["Normal-1.png"].further["origin"] == "www.kaggle.com"
    assert rows["Normal-10192.PNG"].further == {}
    assert found.notes == (
        "images that only COVID.metadata.xlsx names: 1",
        "images of Normal that Normal.metadata.xlsx does not name: 1",
    )


def test_covid_radiography_does_without_a_sheet_and_not_without_images(
    miniature: Miniature, tmp_path: Path
) -> None:
    root = miniature("covid-radiography", tmp_path / "set") / "COVID-19_Radiography_Dataset"
    (root / "Viral Pneumonia.metadata.xlsx").unlink()
    found = listing("covid-radiography", root)
    assert any("Viral Pneumonia.metadata.xlsx is missing" in note for note in found.notes)
    shutil.rmtree(root / "COVID/images")
    assert "lacks the folder 'images'" in refusal("covid-radiography", root)
