"""The metadata sheets of Qatar University's data sets."""

from pathlib import Path

import openpyxl
import pytest

from tests.data.sources.listings import Miniature, refusal


@pytest.mark.parametrize(
    ("blob", "part"),
    [
        (b"PK\x03\x04 broken", "not a readable xlsx"),
        (b"a,b\n", "not a readable xlsx"),
        (None, "no column 'FILE NAME'"),
    ],
)
def test_a_sheet_that_is_none_is_refused(
    blob: bytes | None, part: str, miniature: Miniature, tmp_path: Path
) -> None:
    root = miniature("tb-chest", tmp_path / "set") / "TB_Chest_Radiography_Database"
    if blob is None:
        openpyxl.Workbook().save(root / "Normal.metadata.xlsx")
    else:
        (root / "Normal.metadata.xlsx").write_bytes(blob)
    assert part in refusal("tb-chest", tmp_path / "set")
