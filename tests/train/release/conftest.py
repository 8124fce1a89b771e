"""A bundle for MLflow and a folder of the edge runner, each made once."""

import hashlib
import json
import sys
import types
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from cluster.releases import artefacts
from data.imaging.preprocess import PREPROCESS_VERSION
from data.taxonomy import taxonomy
from jobs.recipes import LEVIT
from tests.train.release.edge_folders import PIXELS
from tests.train.release.mlflow_bundles import MLFLOW_PIXELS, MODEL
from train.export.onnx import to_onnx
from train.release import mlflow_files
from train.release.edge_runner import runner
from train.vit.model import build_vit, timm_kwargs


@pytest.fixture(scope="module")
def mlflow_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
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
        "pixels": asdict(MLFLOW_PIXELS),
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
