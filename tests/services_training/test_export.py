"""Release → export → registry → loading, with the real services; and what loading refuses."""

import hashlib
import io
import json
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import safetensors.torch
import torch

from cluster.objects import ObjectStore
from cluster.releases import bundles
from cluster.releases.bundles import BUCKET, SIGNATURE, BundleError
from cluster.releases.registry import VIT, Registry
from cluster.settings import Settings
from data.dataset import versions
from data.imaging.preprocess import PREPROCESS_VERSION
from data.taxonomy import taxonomy
from jobs.bench import export as bench_export
from serve.control.deploy import cut_over
from serve.control.reconciler import reconcile
from train.config import ModelConfig, TrainConfig
from train.evaluation.evaluate import evaluate
from train.evaluation.gates import Gates
from train.export.export import ExportConfig, export
from train.inputs import dataset
from train.release import publish
from train.tracking import mlflow_runs
from train.vit.inference import weights_sha256
from train.vit.model import build_vit

pytestmark = [pytest.mark.timeout(900), pytest.mark.filterwarnings("ignore::DeprecationWarning")]

ROOT = Path(__file__).resolve().parents[2]
SIDE = 32
CONFIG = TrainConfig(model=ModelConfig(name="vit_tiny_patch16_224", kwargs={"depth": 1, "embed_dim": 96}))
COUNTS = {"train": 60, "validation": 30, "test": 40}
LOAD = """
import io, json, sys
import numpy
from PIL import Image
import mlflow
model = mlflow.pyfunc.load_model("models:/xray-vit@champion")
rng = numpy.random.default_rng(0)
buffer = io.BytesIO()
Image.fromarray(rng.integers(0, 256, (90, 90), dtype=numpy.uint8)).save(buffer, "PNG")
rows = model.predict([buffer.getvalue()])
print(json.dumps({"sum": float(rows.iloc[0].sum()), "classes": len(rows.columns),
                  "project": sorted({"cluster", "data", "train", "serve"} & set(sys.modules))}))
"""


class Platform(Protocol):
    settings: Settings
    env: dict[str, str]


@dataclass(frozen=True)
class Released:
    version: str
    bundle_key: str
    dataset_version: str


def publish_dataset(store: ObjectStore) -> str:
    """Five classes, each a bright band at another height."""
    version = f"export{uuid.uuid4().hex[:10]}"
    parts = []
    for split, count in COUNTS.items():
        rng = np.random.default_rng(len(parts))
        rows = []
        for nth in range(count):
            pixels_HW = rng.integers(0, 90, (SIDE, SIDE), dtype=np.uint8)
            pixels_HW[6 * (nth % 5) : 6 * (nth % 5) + 6] += 130
            digest = hashlib.sha256(pixels_HW.tobytes()).hexdigest()
            rows.append(
                {
                    "sample_hash": digest,
                    "pixels": pixels_HW.tobytes(),
                    "label_index": nth % 5,
                    "group_key": f"{split}-{nth}",
                    "source": "synthetic",
                    "site": None,
                    "sex": None,
                    "age": None,
                    "view": None,
                    "sha256": digest,
                }
            )
        written = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(rows), written)
        key = versions.part_key(version, split, 0)
        store.put(versions.BUCKET, key, written.getvalue())
        digest = hashlib.sha256(written.getvalue()).hexdigest()
        parts.append({"key": key, "split": split, "rows": len(rows), "sha256": digest})
    settings = {"pixels": {"side": SIDE}, "preprocess_version": PREPROCESS_VERSION}
    described = {"version": version, "classes": list(taxonomy().names), "parts": parts, "synthetic": True}
    versions.publish(store, version, described | {"settings": settings})
    return version


def learn(data: dataset.TrainingData) -> bytes:
    """A few steps of plain torch: enough to tell bands apart."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    model = build_vit(CONFIG.model, classes=len(data.classes), side=SIDE).train()
    optimizer = torch.optim.AdamW(model.parameters(), 2e-3)
    labels_N = torch.from_numpy(data.train.labels_N)
    for _ in range(30):
        inputs_NCHW = dataset.inputs(data.train, np.arange(len(data.train)), data.pixels)
        loss = torch.nn.functional.cross_entropy(model(inputs_NCHW), labels_N)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return safetensors.torch.save(model.state_dict())


@pytest.fixture(scope="module")
def released(platform: Platform) -> Released:
    """A model version as `train` registers one."""
    settings, store = platform.settings, ObjectStore(platform.settings)
    version = publish_dataset(store)
    data = dataset.load(settings, version)
    weights = learn(data)
    mlflow = mlflow_runs.client(settings.mlflow_tracking_uri)
    run_id = mlflow_runs.start_run(mlflow, version, version, {})
    lineage = {"dataset_version": version, "synthetic": True, "git_commit": "abc", "run_id": run_id}
    calibration = publish.fit_calibration(CONFIG, data, weights)
    strange = publish.fit_outliers(CONFIG, data, weights)
    key = publish.publish(
        store, CONFIG, data, weights, calibration=calibration, strange=strange, lineage=lineage, metrics={}
    )
    digest = weights_sha256(safetensors.torch.load(weights))
    return Released(publish.register(Registry(settings), key, lineage, digest), key, version)


def python(platform: Platform, *arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        env={**platform.env, "PYTHONWARNINGS": "ignore"},
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )


def last_line(ended: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert ended.stdout, ended.stderr
    told: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    return told


@pytest.fixture(scope="module")
def exported(
    platform: Platform, released: Released, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, Any], Path]:
    """The last line of the job, and the folder that it wrote both variants to."""
    folder = tmp_path_factory.mktemp("exported")
    ended = python(
        platform, "-m", "jobs.export", "--model_version", released.version,
        "--output", str(folder), "--export.latency_runs", "3",
    )  # fmt: skip
    told = last_line(ended)
    assert (told["status"], ended.returncode) == ("ok", 0), ended.stderr
    return told, folder


def test_both_variants_are_exported_under_the_version_and_verified_by_the_standard_tool(
    platform: Platform, released: Released, exported: tuple[dict[str, Any], Path]
) -> None:
    told, folder = exported
    rows = {row["name"]: row for row in told["variants"]}
    assert list(rows) == ["torch", "onnx-float32", "onnx-int8-dynamic", "onnx-int8-static"]
    assert rows["torch"]["accuracy"] > 0.8
    assert rows["onnx-float32"]["largest_logit_difference"] < 1e-3
    assert rows["onnx-float32"]["same_label"] == 1.0
    assert told["int8"] in ("onnx-int8-dynamic", "onnx-int8-static")
    registry = Registry(platform.settings)
    assert registry.newest(VIT) == released.version
    assert set(registry.bundle_keys(VIT, released.version)) == {
        released.bundle_key, told["bundle_edge"], told["bundle_cloud"],
    }  # fmt: skip
    assert {path.name for path in (folder / "edge").iterdir()} == {
        "model.int8.onnx", "predict.py", "card.json", "requirements.txt", "bundle.json", "bundle.json.sig",
    }  # fmt: skip
    assert {path.name for path in (folder / "cloud").iterdir()} == {
        "model.onnx", "model.safetensors", "card.json", "bundle.json", "bundle.json.sig",
    }  # fmt: skip
    for variant in ("edge", "cloud"):
        card = json.loads((folder / variant / "card.json").read_text())
        assert card["variants"] == told["variants"]
        tool = python(
            platform, "-m", "model_signing", "verify", "key", str(folder / variant),
            "--signature", str(folder / variant / "bundle.json.sig"),
            "--public_key", str(platform.settings.verifying_key_path), "--ignore_unsigned_files",
        )  # fmt: skip
        assert tool.returncode == 0, tool.stderr
    run_id = registry.run_id(VIT, released.version)
    assert {one.path for one in registry.client.list_artifacts(run_id, "export")} == {
        "export/variants.json", "export/variants.md",
    }  # fmt: skip


def test_exporting_again_in_another_process_gives_the_same_graphs(
    platform: Platform, released: Released, exported: tuple[dict[str, Any], Path]
) -> None:
    again = export(platform.settings, released.version, ExportConfig(latency_runs=2))
    store = ObjectStore(platform.settings)
    one, other = (bundles.index(store, key) for key in (exported[0]["bundle_cloud"], again.bundle_cloud))
    assert one["model.onnx"] == other["model.onnx"]


@pytest.fixture
def champion(platform: Platform, released: Released) -> Iterator[None]:
    """For a test, the version is the champion."""
    registry = Registry(platform.settings)
    before = registry.version_by_alias(VIT, "champion")
    registry.set_alias(VIT, "champion", released.version)
    yield
    registry.remove_alias(VIT, "champion")
    if before is not None:
        registry.set_alias(VIT, "champion", before)


def test_mlflow_loads_the_champion_in_a_process_without_the_project(
    platform: Platform, champion: None, tmp_path: Path
) -> None:
    told = last_line(python(platform, "-I", "-c", LOAD, cwd=tmp_path))
    assert told["sum"] == pytest.approx(1.0)
    assert (told["classes"], told["project"]) == (10, [])


def test_the_champions_loss_as_int8_is_a_benchmark(
    platform: Platform, champion: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in platform.env.items():
        monkeypatch.setenv(name, value)
    figure = bench_export.int8_accuracy_loss()
    assert figure.peer == 1.0
    assert -100 <= figure.ours == figure.ratio <= 100
    assert f"{COUNTS['test']} images" in figure.peer_name


@pytest.fixture
def tampered(platform: Platform, released: Released) -> Any:
    """Exchange one object of the bundle for a test, and put it back."""
    store = ObjectStore(platform.settings)
    kept: dict[str, bytes] = {}

    def exchange(name: str, content: bytes | None) -> None:
        key = f"{released.bundle_key}/{name}"
        kept[key] = store.get(BUCKET, key)
        if content is None:
            store.delete(BUCKET, [key])
        else:
            store.put(BUCKET, key, content)

    yield exchange
    for key, blob in kept.items():
        store.put(BUCKET, key, blob)


def refuse(platform: Platform, released: Released, monkeypatch: pytest.MonkeyPatch, says: str) -> None:
    """Whoever loads the bundle, or deploys it, says so."""
    from serve.deployments import ClassifierReplica  # Ray warns about pydantic while it is imported

    settings, registry = platform.settings, Registry(platform.settings)
    for name, value in platform.env.items():
        monkeypatch.setenv(name, value)
    verdict = registry.tags(VIT, released.version).get("verdict", "")
    registry.set_tags(VIT, released.version, {"verdict": "pass"})
    champion = registry.version_by_alias(VIT, "champion")
    for load in (
        lambda: evaluate(settings, released.version, Gates(), "development"),
        lambda: export(settings, released.version, ExportConfig()),
        lambda: ClassifierReplica(released.bundle_key, 1, "cpu"),
        lambda: cut_over(settings, released.version, actor="test"),
    ):
        with pytest.raises(BundleError, match=says) as caught:
            load()
        assert "\n" not in str(caught.value)
    assert registry.version_by_alias(VIT, "champion") == champion
    registry.set_tags(VIT, released.version, {"verdict": verdict})


def test_a_flipped_byte_of_the_weights_is_refused_by_all(
    platform: Platform, released: Released, tampered: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = bytearray(
        ObjectStore(platform.settings).get(BUCKET, f"{released.bundle_key}/model.safetensors")
    )
    weights[-5] ^= 1
    tampered("model.safetensors", bytes(weights))
    refuse(platform, released, monkeypatch, "model.safetensors was changed")


def test_a_pickle_in_place_of_the_weights_is_refused_by_all(
    platform: Platform, released: Released, tampered: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    buffer = io.BytesIO()
    torch.save({"weight": torch.zeros(2)}, buffer)
    tampered("model.safetensors", buffer.getvalue())
    refuse(platform, released, monkeypatch, "model.safetensors was changed")


def test_without_a_signature_all_refuse_until_it_is_signed_again(
    platform: Platform, released: Released, tampered: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    tampered(SIGNATURE, None)
    refuse(platform, released, monkeypatch, r"it has no signature\. `python -m jobs.export --sign`")
    ended = python(platform, "-m", "jobs.export", "--sign", "--model_version", released.version)
    assert last_line(ended)["signed"] == [f"{VIT}/{released.version}"], ended.stderr
    bundles.verify(ObjectStore(platform.settings), released.bundle_key)


def test_changed_code_is_refused_before_ray_is_told(
    platform: Platform, released: Released, tampered: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from serve.control import reconciler
    from serve.routing.routes import Routes, Target

    tampered("code.zip", b"PK\x03\x04 other code")
    target = Target(version=released.version, bundle_key=released.bundle_key, role="champion")
    monkeypatch.setattr(
        reconciler.desired_state, "read", lambda connection: {VIT: Routes(model=VIT, targets=(target,))}
    )
    with pytest.raises(BundleError, match=r"code\.zip was changed"):
        reconcile(platform.settings)


def test_a_version_that_does_not_exist_ends_in_one_line(platform: Platform) -> None:
    ended = python(platform, "-m", "jobs.export", "--model_version", "4711")
    told = last_line(ended)
    assert (ended.returncode, told["status"]) == (1, "failed")
    assert told["error"] == "the registry has no xray-vit version 4711"
    assert os.linesep not in ended.stderr.strip()
