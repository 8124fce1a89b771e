"""Class folders of one's own."""

from pathlib import Path

from tests.data.sources.listings import Miniature, listing, refusal


def test_class_folders_that_are_no_classes_are_refused(miniature: Miniature, tmp_path: Path) -> None:
    (tmp_path / "own/train/cats").mkdir(parents=True)
    assert "'cats' in train is no class" in refusal("class-folders", tmp_path / "own")
    (tmp_path / "own/train/cats").rename(tmp_path / "own/train/normal")
    (tmp_path / "own/more").mkdir()
    assert "'more' is no split" in refusal("class-folders", tmp_path / "own")


def test_a_folder_of_ones_own_may_be_called_after_a_patient_and_no_line_says_so(
    miniature: Miniature, tmp_path: Path
) -> None:
    found = listing("class-folders", miniature("class-folders", tmp_path / "own"))
    assert found.where(found.rows[0]) == "image 1 of class-folders"
    (tmp_path / "named/train/normal/DOE_JANE").mkdir(parents=True)
    assert "DOE" not in refusal("class-folders", tmp_path / "named")
