"""A bundle's folder loaded by MLflow in a process that cannot import the project."""

import hashlib
import json
import shutil
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
import yaml

from cluster.releases import artefacts
from data.imaging.preprocess import PREPROCESS_VERSION, PixelConfig, to_pixels
from data.synthetic.generator import SyntheticConfig, draw, subjects
from data.taxonomy import taxonomy
from train.config import ModelConfig
from train.metrics.calibration import probabilities
from train.release import mlflow_files
from train.vit.inference import logits
from train.vit.model import build_vit, timm_kwargs

PIXELS = PixelConfig(side=32)
MODEL = ModelConfig(name="vit_tiny_patch16_224", kwargs={"depth": 1})
LOAD = """
import json, pathlib, sys
import numpy, pandas, mlflow
model = mlflow.pyfunc.load_model(sys.argv[1])
files = [pathlib.Path(path).read_bytes() for path in sys.argv[3:]]
by_file = model.predict(files)
told = {
    "by_file": by_file.to_numpy().tolist(),
    "by_table": model.predict(pandas.DataFrame({"image": files})).to_numpy().tolist(),
    "by_pixels": model.predict(numpy.load(sys.argv[2])).to_numpy().tolist(),
    "classes": list(by_file.columns),
    "project": sorted({"cluster", "data", "train", "serve"} & set(sys.modules)),
}
try:
    model.predict([1])
except Exception as error:
    told["refused"] = str(error)
print(json.dumps(told))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    model = build_vit(MODEL, classes=10, side=32)
    torch.nn.init.normal_(model.head.weight, std=1.0)
    weights = safetensors.torch.save(model.state_dict())
    files = {"model.safetensors": weights, **mlflow_files.files("run")}
    card = {
        "format": 1,
        "model": "xray-vit",
        "classes": list(taxonomy().names),
        "architecture": {"timm": MODEL.name, "kwargs": timm_kwargs(MODEL, classes=10, side=32)},
        "pixels": asdict(PIXELS),
        "preprocess_version": PREPROCESS_VERSION,
        "calibration": {
            "temperature": 2.0,
            "conformal_threshold": 0.4,
            "coverage": 0.9,
            "abstain_below": 0.3,
        },
        "dataset_version": "d",
        "synthetic": True,
        "files": {name: hashlib.sha256(blob).hexdigest() for name, blob in files.items()},
    }
    made = tmp_path_factory.mktemp("bundle")
    for name, blob in {**files, "card.json": json.dumps(card).encode()}.items():
        artefacts.check(name, blob)
        (made / name).write_bytes(blob)
    return made


def load(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-I", "-W", "ignore", "-c", LOAD, *arguments],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
        cwd=cwd,
    )


def films(count: int) -> list[bytes]:
    config = SyntheticConfig(images=10, side=100)
    drawn = [draw(config, one, 1, np.random.default_rng(one.seed))[0] for one in list(subjects(config))[:8]]
    return [one for one in drawn if one.startswith(b"\x89PNG")][:count]


def test_mlflow_gives_the_probabilities_of_training_without_the_project(folder: Path, tmp_path: Path) -> None:
    blobs = films(3)
    for nth, blob in enumerate(blobs):
        (tmp_path / f"{nth}.png").write_bytes(blob)
    pixels_NHW = np.stack([to_pixels(blob, PIXELS) for blob in blobs])
    np.save(tmp_path / "pixels.npy", pixels_NHW)
    paths = [str(tmp_path / f"{nth}.png") for nth in range(len(blobs))]
    ended = load(str(folder), str(tmp_path / "pixels.npy"), *paths, cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    told = json.loads(ended.stdout.splitlines()[-1])
    torch.manual_seed(0)
    model = build_vit(MODEL, classes=10, side=32)
    model.load_state_dict(safetensors.torch.load((folder / "model.safetensors").read_bytes()))
    expected_NK = probabilities(logits(model.eval(), pixels_NHW, PIXELS), 2.0)
    for way in ("by_file", "by_table", "by_pixels"):
        assert np.abs(np.array(told[way]) - expected_NK).max() < 1e-5
    assert np.ptp(expected_NK, axis=0).max() > 0.01
    assert told["classes"] == list(taxonomy().names)
    assert told["project"] == []
    assert "list of files as bytes" in told["refused"]


def test_changed_weights_are_refused(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    changed = bytearray((folder / "model.safetensors").read_bytes())
    changed[-1] ^= 1
    (tmp_path / "model.safetensors").write_bytes(bytes(changed))
    ended = load(str(tmp_path), "none.npy", cwd=tmp_path)
    assert ended.returncode != 0
    assert "model.safetensors was changed" in ended.stderr


def test_the_same_version_gives_the_same_bytes() -> None:
    one, other = (mlflow_files.files("run") for _ in range(2))
    assert one == other
    assert mlflow_files.files("another") != one


def test_the_lock_has_all_that_is_needed_with_exact_versions() -> None:
    lines = mlflow_files.locked(("timm",))
    names = {line.split("==")[0] for line in lines}
    assert {"timm", "torch", "torchvision", "safetensors", "numpy", "pillow", "huggingface-hub"} <= names
    assert all("==" in line for line in lines)
    assert "pytest" not in names


def test_the_description_names_files_that_are_there(folder: Path) -> None:
    flavour = yaml.safe_load((folder / "MLmodel").read_text())["flavors"]["python_function"]
    named = [one["path"] for one in flavour["artifacts"].values()]
    named += [flavour["model_code_path"], *flavour["env"].values()]
    assert all((folder / name).is_file() for name in named)
    assert not any("pickle" in key or key == "python_model" for key in flavour)
