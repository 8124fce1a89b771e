"""A version is cut into files of one split each."""

import pytest

from data.dataset import parts
from data.dataset.parts import plan_parts
from data.dataset.rows import LogicalRow
from data.dataset.split import Split
from data.imaging.preprocess import PixelConfig

CONFIG = PixelConfig(side=64)


def row(number: int, split: Split) -> LogicalRow:
    return LogicalRow(
        sample_hash=f"{number:02d}", label="normal", label_index=0, group_key="g", split=split, source="s",
        sha256=f"f{number}", sex=None, age=None, view=None, site=None,
    )  # fmt: skip


def test_files_hold_one_split_in_the_order_of_the_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "PART_BYTES", 2 * CONFIG.side**2)
    rows = [row(4, "test"), row(3, "train"), row(1, "train"), row(2, "train")]
    block_of = {("s", f"f{number}"): number // 2 for number in range(1, 5)}
    planned = list(plan_parts("v", rows, block_of, CONFIG, {("s", "f3"): ("blank",)}))
    assert [(part.split, [row.sample_hash for row in part.rows]) for part in planned] == [
        ("train", ["01", "02"]),
        ("train", ["03"]),
        ("test", ["04"]),
    ]
    assert planned[0].key == "v/data/train-00000.parquet"
    assert [part.blocks for part in planned] == [(0, 1), (1,), (2,)]
    assert [part.waived for part in planned] == [{}, {("s", "f3"): ("blank",)}, {}]
