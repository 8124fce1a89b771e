"""Pixels in a local file that the workers of a machine map."""

import hashlib
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from train.inputs import pixel_cache
from train.inputs.pixel_cache import Allocate, CacheError, mapped
from train.inputs.sample_order import epoch_order

ROOT = Path(__file__).resolve().parents[3]
SIDE, PARTS, ROWS = 256, 50, 100  # 328 MB


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A published dataset version of 5,000 images, in a folder."""
    folder = tmp_path_factory.mktemp("large")
    parts = []
    for part in range(PARTS):
        rows: dict[str, list[Any]] = {
            name: [None] * ROWS for name in ("group_key", "source", "site", "sex", "age", "view", "sha256")
        }
        numbers = range(part * ROWS, (part + 1) * ROWS)
        pixels = [np.uint32(number).tobytes() * (SIDE * SIDE // 4) for number in numbers]
        rows |= {"sample_hash": [str(one) for one in numbers], "label_index": [one % 3 for one in numbers]}
        written = io.BytesIO()
        pq.write_table(pa.table({**rows, "pixels": pixels}), written, compression="zstd")
        key = f"v/data/train-{part:05d}.parquet"
        (folder / key).parent.mkdir(parents=True, exist_ok=True)
        (folder / key).write_bytes(written.getvalue())
        digest = hashlib.sha256(written.getvalue()).hexdigest()
        parts.append({"key": key, "split": "train", "rows": ROWS, "sha256": digest})
    described = {"version": "v", "parts": parts, "settings": {"pixels": {"side": SIDE}}}
    (folder / "v/manifest.json").write_text(json.dumps(described))
    return folder


def read(large: Path, way: str, folder: Path) -> dict[str, Any]:
    script = str(Path(__file__).with_name("large_split.py"))
    env = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(folder), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, script, str(large), way], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_a_large_split_gives_each_sample_once_from_memory_that_stays_small(
    large: Path, tmp_path: Path
) -> None:
    size = PARTS * ROWS * SIDE**2
    held, found = read(large, "memory", tmp_path), read(large, "mapped", tmp_path)
    assert held["taken"] > size  # what is watched is what is meant
    assert found["taken"] < size / 2
    assert found["seen"] == held["seen"] == PARTS * ROWS
    hashes = [str(nth) for nth in range(PARTS * ROWS)]
    assert found["first"] == held["first"] == epoch_order(hashes, seed=1, epoch=0)[:50].tolist()


def numbers(allocate: Allocate) -> tuple[list[str], np.ndarray]:
    pixels_NHW = allocate((3, 2, 2))
    pixels_NHW[:] = np.arange(12).reshape(3, 2, 2)
    return ["a", "b", "c"], np.array([0, 1, 0])


def never(allocate: Allocate) -> tuple[list[str], np.ndarray]:
    raise AssertionError("it is there already")


def test_the_second_process_maps_what_the_first_one_filled_and_the_last_one_deletes_it(
    tmp_path: Path,
) -> None:
    first = mapped("one", numbers, tmp_path)
    second = mapped("one", never, tmp_path)
    assert second.hashes == ["a", "b", "c"]
    assert second.labels_N.tolist() == [0, 1, 0]
    assert np.array_equal(second.pixels_NHW, np.arange(12).reshape(3, 2, 2))
    first.close()
    assert (tmp_path / "one.pixels").exists()
    second.close()
    assert [one.name for one in tmp_path.iterdir()] == ["lock"]


def test_a_file_that_was_cut_short_is_filled_again_and_one_that_nobody_maps_goes(tmp_path: Path) -> None:
    (tmp_path / "one.pixels").write_bytes(b"half")  # without its labels
    (tmp_path / "killed.pixels").write_bytes(b"left")
    kept = mapped("kept", numbers, tmp_path)
    found = mapped("one", numbers, tmp_path)
    assert found.pixels_NHW[2, 1, 1] == 11
    names = {one.name for one in tmp_path.iterdir()}
    assert not any("killed" in one for one in names)
    assert "kept.pixels" in names
    kept.close()
    found.close()


def test_a_filling_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def broken(allocate: Allocate) -> tuple[list[str], np.ndarray]:
        allocate((3, 2, 2))
        raise ValueError("the store is away")

    with pytest.raises(ValueError, match="the store is away"):
        mapped("one", broken, tmp_path)
    assert [one.name for one in tmp_path.iterdir()] == ["lock"]


def test_a_full_disk_is_one_line_with_what_to_do(tmp_path: Path) -> None:
    def huge(allocate: Allocate) -> tuple[list[str], np.ndarray]:
        allocate((2**20, 2**20, 2**10))  # a pebibyte
        raise AssertionError("there is no such disk")

    with pytest.raises(
        CacheError, match=r"no space for 1048576.0 GiB of pixels .*point TMPDIR at a larger disk"
    ):
        mapped("one", huge, tmp_path)
    assert [one.name for one in tmp_path.iterdir()] == ["lock"]


def test_a_version_that_lost_patients_is_another_file() -> None:
    described = {"version": "v", "parts": [{"split": "train", "sha256": "1"}]}
    changed = {"version": "v", "parts": [{"split": "train", "sha256": "2"}]}
    assert pixel_cache.key(described, "train") != pixel_cache.key(changed, "train")
    assert pixel_cache.memory_bytes() > 2**30
