"""Each strategy on two real Ray Train workers."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.fs
import pytest
import safetensors.numpy

from data.imaging.preprocess import PixelConfig
from train.checkpoints.store import CheckpointStore
from train.config import ModelConfig, TrainConfig
from train.inputs.dataset import Images, TrainingData
from train.runs.worker import VitInputs
from train.runs.workers import fit_on_workers

pytestmark = [
    pytest.mark.filterwarnings(r"ignore::DeprecationWarning:ray(\..*)?"),  # Ray about itself
    pytest.mark.timeout(600),
]

CONFIG = TrainConfig(
    model=ModelConfig(name="vit_tiny_patch16_224", kwargs={"depth": 1}),
    epochs=2,
    batch_size=8,
    microbatch_size=2,
    ema_decay=0.9,
)


def images(count: int) -> Images:
    rng = np.random.default_rng(count)
    return Images(
        hashes=[str(nth) for nth in range(count)],
        pixels_NHW=rng.integers(0, 256, (count, 32, 32), dtype=np.uint8),
        labels_N=rng.integers(0, 3, count),
    )


def load() -> TrainingData:
    return TrainingData(
        train=images(29), validation=images(9), classes=("a", "b", "c"), pixels=PixelConfig(side=32)
    )


def average(folder: Path, config: TrainConfig) -> dict[str, np.ndarray]:
    store = CheckpointStore(pyarrow.fs.LocalFileSystem(), str(folder))
    inputs = VitInputs(load=load, mlflow_tracking_uri=None, mlflow_run_id=None, store=store)
    last = fit_on_workers(config, inputs, "key")
    return safetensors.numpy.load((folder / last / "average.safetensors").read_bytes())


def test_deepspeed_and_fsdp_leave_the_same_weights_on_ray_s_workers(ray_local: None, tmp_path: Path) -> None:
    expected = average(tmp_path / "fsdp", CONFIG)
    found = average(tmp_path / "zero", replace(CONFIG, strategy="deepspeed", zero_stage=2))
    assert found.keys() == expected.keys()
    for name, one in expected.items():
        assert found[name] == pytest.approx(one, abs=1e-3), name
    assert any(np.any(found[name] != one) for name, one in expected.items())  # not one run read twice
