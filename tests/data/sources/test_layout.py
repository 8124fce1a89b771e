"""What every layout refuses: missing folders and links."""

from pathlib import Path

import pytest

from data.sources import registry
from tests.data.sources.listings import Miniature, refusal

NAMES = tuple(registry.SOURCES)


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_and_an_empty_folder_are_one_clear_line(name: str, tmp_path: Path) -> None:
    assert "does not exist" in refusal(name, tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    assert str(tmp_path / "empty") in (refusal(name, tmp_path / "empty"))


def test_a_link_in_a_dataset_is_refused(miniature: Miniature, tmp_path: Path) -> None:
    root = miniature("tb-chest", tmp_path / "set") / "TB_Chest_Radiography_Database"
    (root / "Normal/Normal-9.png").symlink_to("/etc/passwd")
    assert "holds a link" in refusal("tb-chest", tmp_path / "set")
