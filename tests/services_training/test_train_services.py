"""Dataset version → Ray Train → bundle → registry → gates → alias, with the real services."""

import hashlib
import io
import json
import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray
import safetensors.torch

from cluster.database import connect
from cluster.objects import ObjectStore
from cluster.releases import bundles
from cluster.releases.registry import VIT, Registry
from cluster.settings import Settings
from data.dataset import versions
from data.imaging.preprocess import PREPROCESS_VERSION, PixelConfig
from data.taxonomy import taxonomy
from train.config import AugmentConfig, ModelConfig, OptimConfig, TrainConfig
from train.config_checks import TrainConfigError
from train.evaluation.evaluate import evaluate
from train.evaluation.gates import Gates
from train.runs import run_store
from train.runs.trainer import TrainOutcome, train
from train.vit.inference import weights_sha256

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray"),
    pytest.mark.timeout(600),
]

SIDE = 32
LABELS = Gates().required_classes
COUNTS = {"train": 40, "validation": 12, "test": 30}  # images a class
POOR = TrainConfig(
    model=ModelConfig(name="vit_tiny_patch16_224", kwargs={"depth": 1}),
    optim=OptimConfig(learning_rate=1e-5),
    augment=AugmentConfig(rotation_degrees=0),
    epochs=1,
    batch_size=256,
    num_workers=1,
)
GOOD = replace(POOR, num_workers=2, optim=OptimConfig(learning_rate=2e-3), epochs=4, batch_size=16)


class Platform(Protocol):
    settings: Settings


@pytest.fixture(scope="module")
def dataset_version(platform: Platform) -> str:
    """Five classes, each but normal with a bright band at its height of the lungs: easy, published as `etl` does."""
    store = ObjectStore(platform.settings)
    names = taxonomy().names
    version = f"test{uuid.uuid4().hex[:12]}"
    parts = []
    for split, count in COUNTS.items():
        rng = np.random.default_rng(len(parts))
        rows = []
        for label in LABELS * count:
            pixels_HW = rng.integers(0, 90, (SIDE, SIDE), dtype=np.uint8)
            top = 4 * LABELS.index(label) + 2
            if label != "normal":
                pixels_HW[top : top + 4, 6:26] += 130
            blob = pixels_HW.tobytes()
            rows.append(
                {
                    "sample_hash": hashlib.sha256(blob).hexdigest(),
                    "pixels": blob,
                    "label_index": names.index(label),
                    "group_key": f"{split}-{len(rows)}",
                    "source": "synthetic-a" if len(rows) % 2 else "synthetic-b",
                    "site": None,
                    "sex": None,
                    "age": None,
                    "view": None,
                    "sha256": hashlib.sha256(blob).hexdigest(),
                }
            )
        written = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(rows), written)
        key = versions.part_key(version, split, 0)
        store.put(versions.BUCKET, key, written.getvalue())
        digest = hashlib.sha256(written.getvalue()).hexdigest()
        parts.append({"key": key, "split": split, "rows": len(rows), "sha256": digest})
    described = {
        "version": version,
        "classes": list(names),
        "parts": parts,
        "synthetic": False,
        "settings": {
            "pixels": {"side": SIDE, "mean": 0.5, "std": 0.25},
            "preprocess_version": PREPROCESS_VERSION,
        },
    }
    versions.publish(store, version, described)
    return version


@pytest.fixture(scope="module")
def poor(platform: Platform, ray_local: None, dataset_version: str) -> TrainOutcome:
    """A model trained for one step."""
    return train(platform.settings, POOR, dataset_version, f"poor-{dataset_version}", git_commit="abc")


@pytest.fixture(scope="module")
def good(platform: Platform, ray_local: None, dataset_version: str) -> TrainOutcome:
    return train(
        platform.settings,
        GOOD,
        dataset_version,
        f"good-{dataset_version}",
        git_commit="abc",
        uncommitted="+ a line\n",
    )


def card(settings: Settings, outcome: TrainOutcome, folder: Path) -> dict[str, Any]:
    paths = bundles.fetch(ObjectStore(settings), outcome.bundle_key, folder)
    assert {"card.json", "model.safetensors", "code.zip", "MLmodel", "requirements.txt"} <= set(paths)
    read: dict[str, Any] = json.loads(paths["card.json"].read_text())
    for name, digest in read["files"].items():
        assert hashlib.sha256(paths[name].read_bytes()).hexdigest() == digest
    return read


def test_a_run_leaves_a_bundle_with_card_and_a_version_without_alias(
    platform: Platform, poor: TrainOutcome, dataset_version: str, tmp_path: Path
) -> None:
    read = card(platform.settings, poor, tmp_path)
    assert poor.steps == 1
    assert not poor.resumed
    assert read["classes"] == list(taxonomy().names)
    assert PixelConfig(**read["pixels"]).side == SIDE
    assert read["architecture"]["timm"] == "vit_tiny_patch16_224"
    assert (read["dataset_version"], read["synthetic"], read["git_commit"]) == (dataset_version, False, "abc")
    assert TrainConfig.from_dict(read["config"]) == POOR
    assert set(read["calibration"]) == {"temperature", "conformal_threshold", "coverage", "abstain_below"}
    registry = Registry(platform.settings)
    assert registry.bundle_key(VIT, poor.model_version) == poor.bundle_key
    for alias in ("champion", "challenger"):
        assert registry.version_by_alias(VIT, alias) != poor.model_version


def test_mlflow_has_settings_and_a_row_an_epoch(platform: Platform, good: TrainOutcome) -> None:
    client = Registry(platform.settings).client
    run = client.get_run(good.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params["optim.learning_rate"] == "0.002"
    for name in ("train_loss", "validation_accuracy", "validation_balanced_accuracy", "images_per_s"):
        assert [one.step for one in client.get_metric_history(good.run_id, name)] == [1, 2, 3, 4]
    assert {one.path for one in client.list_artifacts(good.run_id, "release")} == {
        "release/config.json",
        "release/card.json",
    }


def test_mlflow_has_the_machine_the_packages_the_changes_and_the_dataset(
    platform: Platform, good: TrainOutcome, dataset_version: str, tmp_path: Path
) -> None:
    client = Registry(platform.settings).client
    run = client.get_run(good.run_id)
    assert {"system/cpu_utilization_percentage", "system/system_memory_usage_megabytes"} <= set(
        run.data.metrics
    )
    assert run.data.tags["raydiology.uncommitted"] == "changed"
    read = {
        name: Path(client.download_artifacts(good.run_id, name, str(tmp_path))).read_text()
        for name in ("code/uncommitted.diff", "environment/requirements.txt")
    }
    assert read["code/uncommitted.diff"] == "+ a line\n"
    assert f"ray=={ray.__version__}" in read["environment/requirements.txt"].splitlines()
    inputs = {one.dataset.name: one.dataset for one in run.inputs.dataset_inputs}
    assert inputs.keys() >= {"raydiology-train", "raydiology-validation"}
    for split in ("train", "validation"):
        one = inputs[f"raydiology-{split}"]
        assert one.digest == dataset_version
        assert json.loads(one.profile)["num_rows"] == len(LABELS) * COUNTS[split]
        (bucket, _, folder) = json.loads(one.source)["uri"].removeprefix("s3://").rstrip("/").partition("/")
        assert (bucket, folder) == (platform.settings.bucket(versions.BUCKET), dataset_version)


def test_a_finished_run_is_returned_without_training(
    platform: Platform, good: TrainOutcome, dataset_version: str
) -> None:
    again = train(platform.settings, GOOD, dataset_version, good.run)
    assert again == replace(good, resumed=True)


def test_a_run_that_was_cut_off_after_training_only_publishes_again(
    platform: Platform, good: TrainOutcome, dataset_version: str
) -> None:
    store = ObjectStore(platform.settings)
    run, begun = run_store.begin(store, good.run, GOOD, dataset_version, fresh=False)
    assert begun
    store._fs.rm_file(store.path(run_store.BUCKET, f"{run.folder}/finished.json"))
    again = train(platform.settings, GOOD, dataset_version, good.run, git_commit="abc")
    assert again == replace(good, resumed=True)


def test_another_configuration_under_the_same_name_is_refused(
    platform: Platform, good: TrainOutcome, dataset_version: str
) -> None:
    with pytest.raises(run_store.RunError, match="--fresh"):
        train(platform.settings, replace(GOOD, seed=9), dataset_version, good.run)


def test_verdicts_give_aliases_and_leave_an_audit_row(
    platform: Platform, poor: TrainOutcome, good: TrainOutcome
) -> None:
    settings, registry = platform.settings, Registry(platform.settings)
    for alias in ("champion", "challenger"):
        if registry.version_by_alias(VIT, alias) is not None:
            registry.remove_alias(VIT, alias)
    failed = evaluate(settings, poor.model_version, Gates(), "development")
    assert (failed.verdict, failed.alias, failed.gates["accuracy"]) == ("fail", None, "fail")
    assert registry.version_by_alias(VIT, "champion") is None
    passed = evaluate(settings, good.model_version, Gates(), "development")
    assert (passed.verdict, passed.alias) == ("pass", "champion")
    assert passed.metrics["accuracy"] >= 0.9
    assert passed.gates["recall_bone_fracture"] == "not evaluable"
    assert evaluate(settings, good.model_version, Gates(), "development").alias == "champion"
    registry.set_alias(VIT, "champion", poor.model_version)
    assert evaluate(settings, good.model_version, Gates(), "development").alias == "challenger"
    registry.remove_alias(VIT, "champion")
    registry.remove_alias(VIT, "challenger")
    assert registry.tags(VIT, poor.model_version)["verdict"] == "fail"
    with connect(settings.database_url) as connection:
        rows = connection.execute(
            "SELECT detail FROM audit WHERE action = 'judge' AND subject = %s",
            (f"{VIT}/{poor.model_version}",),
        ).fetchall()
    assert rows[0]["detail"]["verdict"] == "fail"


def test_a_run_can_begin_with_the_champion_s_weights_and_publish_their_average(
    platform: Platform, good: TrainOutcome, dataset_version: str, tmp_path: Path
) -> None:
    registry = Registry(platform.settings)
    before = registry.version_by_alias(VIT, "champion")
    registry.set_alias(VIT, "champion", good.model_version)
    warm = replace(
        GOOD,
        model=replace(GOOD.model, start="champion"),
        optim=OptimConfig(learning_rate=1e-5),
        epochs=1,
        ema_decay=0.9,
        strategy="deepspeed",
    )
    made = train(platform.settings, warm, dataset_version, f"warm-{dataset_version}")
    if before is None:
        registry.remove_alias(VIT, "champion")
    else:
        registry.set_alias(VIT, "champion", before)
    read = card(platform.settings, made, tmp_path)
    assert read["start"] == f"xray-vit/{good.model_version}"
    assert read["metrics"]["validation_accuracy"] > 0.95  # after one epoch at a hundredth of the rate
    published = safetensors.torch.load((tmp_path / "model.safetensors").read_bytes())
    assert weights_sha256(published) != made.weights_sha256
    store = ObjectStore(platform.settings)
    folder = next(
        key.rsplit("/", 1)[0]
        for key in store.keys(run_store.BUCKET, f"runs/warm-{dataset_version}/g001/checkpoints/")
        if key.endswith("average.safetensors")
    )
    raw = safetensors.torch.load(store.get(run_store.BUCKET, f"{folder}/model.safetensors"))
    assert weights_sha256(raw) == made.weights_sha256


def test_a_champion_of_another_architecture_ends_the_run_before_a_worker_starts(
    platform: Platform, good: TrainOutcome, dataset_version: str
) -> None:
    registry = Registry(platform.settings)
    registry.set_alias(VIT, "champion", good.model_version)
    deeper = replace(GOOD, model=ModelConfig(name=GOOD.model.name, kwargs={"depth": 2}, start="champion"))
    with pytest.raises(TrainConfigError, match=f"xray-vit/{good.model_version} is vit_tiny_patch16_224 with"):
        train(platform.settings, deeper, dataset_version, f"deeper-{dataset_version}")
    registry.remove_alias(VIT, "champion")
    with pytest.raises(TrainConfigError, match="no version of xray-vit is champion yet"):
        train(platform.settings, deeper, dataset_version, f"deeper-{dataset_version}")
