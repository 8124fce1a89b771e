"""Kermany's chest X-rays: causes from names, and persons that start anew in test."""

import shutil
from collections.abc import Callable
from pathlib import Path

from data.sources.manifest import Manifest
from tests.data.sources.listings import Miniature, by_name, labels, listing, refusal


def test_kermany_tells_the_cause_from_the_name_and_restarts_its_persons_in_test(
    listed: Callable[[str], Manifest],
) -> None:
    found = listed("kermany-pneumonia")
    rows = by_name(found)
    assert labels(found) == {"normal": 6, "bacterial_pneumonia": 4, "viral_pneumonia": 2}
    one, two = rows["person1_bacteria_1.jpeg"], rows["person1_bacteria_2.jpeg"]
    assert one.patient_id == two.patient_id == "train-person1"
    assert rows["person1_virus_6.jpeg"].patient_id == "test-person1"
    assert rows["person1946_bacteria_4874.jpeg"].patient_id == "train-person1946"
    assert rows["IM-0115-0001.jpeg"].patient_id == rows["IM-0115-0002.jpeg"].patient_id == "IM-0115"
    assert rows["NORMAL2-IM-0329-0001.jpeg"].patient_id == "NORMAL2-IM-0329"
    assert {(row.view, row.age_range_years, row.sex) for row in found.rows} == {("AP", (1, 5), None)}
    assert rows["person3_virus_15.JPEG"].further == {"published_split": "train"}
    assert any("chest_xray/chest_xray" in note for note in found.notes)


def test_kermany_in_the_publishers_own_third_version_has_other_names(
    miniature: Miniature, tmp_path: Path
) -> None:
    root = miniature("kermany-pneumonia", tmp_path / "set") / "chest_xray"
    shutil.rmtree(root / "val")
    shutil.rmtree(root / "chest_xray")
    (root / "train/PNEUMONIA/person1_bacteria_1.jpeg").rename(
        root / "train/PNEUMONIA/BACTERIA-7422-0001.jpeg"
    )
    (root / "test/PNEUMONIA/person1_virus_6.jpeg").rename(root / "test/PNEUMONIA/VIRUS-7422-0002.jpeg")
    (root / "train/NORMAL/IM-0115-0001.jpeg").rename(root / "train/NORMAL/NORMAL-28501-0001.jpeg")
    (root / "train/NORMAL/IM-0115-0002.jpeg").rename(root / "train/NORMAL/a film.jpeg")
    rows = by_name(listing("kermany-pneumonia", root))
    bacterial, viral = rows["BACTERIA-7422-0001.jpeg"], rows["VIRUS-7422-0002.jpeg"]
    assert (bacterial.label, viral.label) == ("bacterial_pneumonia", "viral_pneumonia")
    assert bacterial.patient_id == viral.patient_id == "number-7422"
    assert rows["NORMAL-28501-0001.jpeg"].label == rows["a film.jpeg"].label == "normal"
    assert rows["a film.jpeg"].patient_id is None


def test_kermany_refuses_a_pneumonia_without_a_cause_and_a_strange_class(
    miniature: Miniature, tmp_path: Path
) -> None:
    root = miniature("kermany-pneumonia", tmp_path / "set") / "chest_xray"
    file = root / "train/PNEUMONIA/person1_bacteria_1.jpeg"
    file.rename(file.with_name("person1_1.jpeg"))
    assert "person1_1.jpeg" in refusal("kermany-pneumonia", tmp_path / "set")
    file.with_name("person1_1.jpeg").rename(file)
    (root / "train/COVID").mkdir()
    assert "unknown folder 'COVID'" in refusal("kermany-pneumonia", tmp_path / "set")
    (root / "train/COVID").rmdir()
    shutil.rmtree(root / "test/NORMAL")
    assert "lacks the folder 'NORMAL'" in refusal("kermany-pneumonia", tmp_path / "set")
