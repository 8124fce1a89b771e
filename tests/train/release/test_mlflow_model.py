"""The MLflow model of a bundle, in a process without the project."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import safetensors.torch
import torch

from data.imaging.preprocess import to_pixels
from data.synthetic.generator import SyntheticConfig, draw, subjects
from data.taxonomy import taxonomy
from tests.train.release.mlflow_bundles import MLFLOW_PIXELS, MODEL
from train.metrics.calibration import probabilities
from train.vit.inference import logits
from train.vit.model import build_vit

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


def test_mlflow_gives_the_probabilities_of_training_without_the_project(
    mlflow_folder: Path, tmp_path: Path
) -> None:
    blobs = films(3)
    for nth, blob in enumerate(blobs):
        (tmp_path / f"{nth}.png").write_bytes(blob)
    pixels_NHW = np.stack([to_pixels(blob, MLFLOW_PIXELS) for blob in blobs])
    np.save(tmp_path / "pixels.npy", pixels_NHW)
    paths = [str(tmp_path / f"{nth}.png") for nth in range(len(blobs))]
    ended = load(str(mlflow_folder), str(tmp_path / "pixels.npy"), *paths, cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    told = json.loads(ended.stdout.splitlines()[-1])
    torch.manual_seed(0)
    model = build_vit(MODEL, classes=10, side=32)
    model.load_state_dict(safetensors.torch.load((mlflow_folder / "model.safetensors").read_bytes()))
    expected_NK = probabilities(logits(model.eval(), pixels_NHW, MLFLOW_PIXELS), 2.0)
    for way in ("by_file", "by_table", "by_pixels"):
        assert np.abs(np.array(told[way]) - expected_NK).max() < 1e-5
    assert np.ptp(expected_NK, axis=0).max() > 0.01
    assert told["classes"] == list(taxonomy().names)
    assert told["project"] == []
    assert "list of files as bytes" in told["refused"]


def test_changed_weights_are_refused(mlflow_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(mlflow_folder, tmp_path, dirs_exist_ok=True)
    changed = bytearray((mlflow_folder / "model.safetensors").read_bytes())
    changed[-1] ^= 1
    (tmp_path / "model.safetensors").write_bytes(bytes(changed))
    ended = load(str(tmp_path), "none.npy", cwd=tmp_path)
    assert ended.returncode != 0
    assert "model.safetensors was changed" in ended.stderr
