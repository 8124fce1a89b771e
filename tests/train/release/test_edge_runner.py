"""The edge runner as a program of its own: the pixels of `data.imaging.preprocess`, the answers of `serve`."""

import ast
import functools
import hashlib
import io
import json
import subprocess
import sys
import types
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from data.imaging.errors import BadImageError
from data.imaging.preprocess import PREPROCESS_VERSION, PixelConfig, to_pixels
from data.model_card import ModelCard
from data.synthetic.generator import SyntheticConfig, draw, subjects
from data.taxonomy import taxonomy
from jobs.recipes import LEVIT
from serve.classifier.answer import Classified
from serve.classifier.answer import answer as served_answer
from train.export.onnx import to_onnx
from train.release.edge_runner import _check_names, runner
from train.vit.model import build_vit

PIXELS = PixelConfig(side=64)
ALLOWED = {"numpy", "PIL", "onnxruntime"}
ONLY_THOSE = """
import importlib.abc, runpy, sys
class Guard(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"cv2", "torch", "pydicom", "scipy", "timm", "data", "train", "cluster", "serve"}:
            raise ModelessError(name)
class ModelessError(ImportError):
    pass
sys.meta_path.insert(0, Guard())
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@functools.cache
def drawn() -> list[bytes]:
    """Synthetic films as PNG of 8 and 16 bits, and the same as JPEG; with text, odd sides, colour modes."""
    config = SyntheticConfig(images=30, side=301)
    blobs = []
    for subject, _ in zip(subjects(config), range(14), strict=False):
        blob, _, _ = draw(config, subject, 1, np.random.default_rng(subject.seed))
        if blob.startswith(b"\x89PNG"):
            blobs.append(blob)
    grey = Image.open(io.BytesIO(blobs[0])).convert("L")
    lettered = np.asarray(grey).copy()
    cv2.putText(lettered, "PAT 4711 L", (10, 40), cv2.FONT_HERSHEY_SIMPLEX, 0.8, 255, 2)
    for image, kind in (
        (Image.fromarray(lettered), "PNG"),
        (Image.fromarray(lettered), "JPEG"),
        (Image.fromarray(np.kron(lettered, np.ones((3, 3), np.uint8))), "JPEG"),
        (grey.convert("RGB"), "JPEG"),
        (grey.convert("RGBA"), "PNG"),
        (grey.resize((500, 120)), "PNG"),
        (Image.fromarray(np.asarray(grey).astype(np.uint16) * 200), "PNG"),
    ):
        buffer = io.BytesIO()
        image.save(buffer, kind)
        blobs.append(buffer.getvalue())
    return blobs


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


@pytest.fixture(scope="module")
def module() -> types.ModuleType:
    """The runner's text, executed as a module of its own."""
    made = types.ModuleType("edge_runner")
    sys.modules["edge_runner"] = made
    exec(compile(runner(), "predict.py", "exec"), made.__dict__)
    return made


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export of an untrained model."""
    torch.manual_seed(1)
    torch.set_num_threads(1)
    model = build_vit(LEVIT, classes=10, side=64)
    torch.nn.init.normal_(model.head.linear.weight, std=2.0)
    graph = to_onnx(model, 64)
    card: dict[str, Any] = {
        "format": 1,
        "model": "xray-vit",
        "model_version": "7",
        "variant": "edge",
        "classes": list(taxonomy().names),
        "architecture": {"timm": LEVIT.name, "kwargs": LEVIT.kwargs},
        "pixels": asdict(PIXELS),
        "preprocess_version": PREPROCESS_VERSION,
        "calibration": {
            "temperature": 1.3,
            "conformal_threshold": 0.2,
            "coverage": 0.9,
            "abstain_below": 0.3,
        },
        "dataset_version": "d",
        "synthetic": True,
        "runtime": {"model": "model.int8.onnx", "form": "onnx-int8-static"},
        "files": {"model.int8.onnx": hashlib.sha256(graph).hexdigest()},
    }
    made = tmp_path_factory.mktemp("edge")
    (made / "card.json").write_text(json.dumps(card))
    (made / "model.int8.onnx").write_bytes(graph)
    (made / "predict.py").write_text(runner())
    return made


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-I", "-c", ONLY_THOSE, str(folder / "predict.py"), *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


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


def test_a_program_without_the_project_says_what_serving_says(
    module: types.ModuleType, folder: Path, tmp_path: Path
) -> None:
    card = ModelCard.read(folder / "card.json")
    predictor = module.Predictor(folder)
    blobs = drawn()[:4]
    paths = []
    for nth, blob in enumerate(blobs):
        paths.append(tmp_path / f"{nth}.img")
        paths[-1].write_bytes(blob)
    ended = run(folder, *map(str, paths))
    assert ended.returncode == 0, ended.stderr
    told = [json.loads(line) for line in ended.stdout.splitlines()]
    assert [one["file"] for one in told] == [str(path) for path in paths]
    for one, blob in zip(told, blobs, strict=True):
        logits_NK = predictor.logits(to_pixels(blob, PIXELS)[None])
        probabilities_K = module.probabilities(logits_NK, card.calibration.temperature)[0]
        expected = served_answer(Classified(probabilities_C=probabilities_K), card)
        for name in (
            "label", "confidence", "abstained", "abstained_reason", "prediction_set", "probabilities",
        ):  # fmt: skip
            assert one[name] == getattr(expected, name)
        assert one["model"] == {"name": "xray-vit", "version": "7", "variant": "edge"}
    assert len({json.dumps(one["probabilities"]) for one in told}) > 1


def test_one_bad_image_among_good_ones_is_told_and_ends_in_1(folder: Path, tmp_path: Path) -> None:
    good, bad = tmp_path / "good.png", tmp_path / "bad.png"
    good.write_bytes(drawn()[0])
    bad.write_bytes(b"hello there")
    ended = run(folder, str(bad), str(good), str(tmp_path / "absent.png"))
    told = [json.loads(line) for line in ended.stdout.splitlines()]
    assert ended.returncode == 1
    assert told[0]["reason"] == "unknown_type"
    assert "label" in told[1]
    assert told[2]["error"] == "the file cannot be read: No such file or directory"


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("model.int8.onnx", b"\x08\x0aother", "was changed: its SHA-256 is not the one in card.json"),
        ("model.int8.onnx", None, "model.int8.onnx beside predict.py cannot be read"),
        ("card.json", b"{", "card.json beside predict.py cannot be read"),
    ],
)
def test_a_folder_that_is_not_whole_is_refused_in_one_line(
    folder: Path, tmp_path: Path, name: str, content: bytes | None, says: str
) -> None:
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    if content is None:
        (tmp_path / name).unlink()
    else:
        (tmp_path / name).write_bytes(content)
    ended = run(tmp_path, "x.png")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert says in ended.stderr
    assert ended.stderr.count("\n") == 1


def test_a_card_of_another_transform_is_refused(folder: Path, tmp_path: Path) -> None:
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    card = json.loads((tmp_path / "card.json").read_text())
    (tmp_path / "card.json").write_text(json.dumps({**card, "preprocess_version": "1"}))
    assert "pixel transform 1" in run(tmp_path, "x.png").stderr


def test_parts_that_define_the_same_name_are_refused() -> None:
    with pytest.raises(AssertionError, match="both define count"):
        _check_names([("one.py", "def count(): ..."), ("two.py", "count = 1")])
