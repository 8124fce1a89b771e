"""The edge runner as a program of its own: the pixels of `data.imaging.preprocess`, the answers of `serve`."""

import ast
import io
import json
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.imaging.errors import BadImageError
from data.imaging.preprocess import to_pixels
from tests.train.release.edge_folders import PIXELS, drawn, run
from train.release.edge_runner import _check_names, runner

ALLOWED = {"numpy", "PIL", "onnxruntime"}


def broken() -> list[bytes]:
    buffer = io.BytesIO()
    Image.new("L", (200, 200), 7).save(buffer, "PNG")
    tiny = io.BytesIO()
    Image.new("L", (20, 20), 7).save(tiny, "PNG")
    rng = np.random.default_rng(0)
    photograph = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (100, 100, 3), dtype=np.uint8)).save(photograph, "PNG")
    whole = drawn()[0]
    return [
        b"",
        b"hello there",
        buffer.getvalue(),
        tiny.getvalue(),
        photograph.getvalue(),
        whole[: len(whole) // 2],
    ]


def test_the_runner_imports_the_standard_library_and_three_packages() -> None:
    imported = set()
    for node in ast.walk(ast.parse(runner())):
        if isinstance(node, ast.Import):
            imported |= {one.name.split(".")[0] for one in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add((node.module or "").split(".")[0])
    assert imported - sys.stdlib_module_names == ALLOWED


def test_its_pixels_are_those_of_training_bit_by_bit(module: types.ModuleType) -> None:
    blobs = drawn()
    assert len(blobs) >= 12
    masked = 0
    for blob in blobs:
        ours_HW = to_pixels(blob, PIXELS)
        assert np.array_equal(module.to_pixels(blob, module.PixelConfig(side=64)), ours_HW)
        masked += len(module.find_text(module._decode_raster(blob, module.sniff(blob), ())))
    assert masked >= 3


def test_what_cannot_be_used_is_refused_with_the_same_reason(module: types.ModuleType) -> None:
    for blob in broken():
        with pytest.raises(BadImageError) as ours:
            to_pixels(blob, PIXELS)
        with pytest.raises(module.BadImageError) as theirs:
            module.to_pixels(blob, module.PixelConfig(side=64))
        assert (theirs.value.reason, theirs.value.message) == (ours.value.reason, ours.value.message)
    with pytest.raises(module.BadImageError, match="reads PNG and JPEG"):
        module.to_pixels(b"\0" * 128 + b"DICM" + b"\0" * 64, module.PixelConfig(side=64))


def test_a_card_of_another_transform_is_refused(folder: Path, tmp_path: Path) -> None:
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    card = json.loads((tmp_path / "card.json").read_text())
    (tmp_path / "card.json").write_text(json.dumps({**card, "preprocess_version": "1"}))
    assert "pixel transform 1" in run(tmp_path, "x.png").stderr


def test_parts_that_define_the_same_name_are_refused() -> None:
    with pytest.raises(AssertionError, match="both define count"):
        _check_names([("one.py", "def count(): ..."), ("two.py", "count = 1")])
