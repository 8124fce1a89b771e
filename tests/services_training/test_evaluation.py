"""A model version judged with the real services: what MLflow gets, what halts, what the champion has to do with it."""

import hashlib
import io
import json
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import safetensors.torch
import timm
import torch
import torch.nn.functional as F

from cluster.objects import ObjectStore
from cluster.releases import bundles
from cluster.releases.registry import VIT, Registry
from cluster.settings import Settings
from data.catalog.originals import RAW, Originals
from data.dataset import versions
from data.imaging.preprocess import PREPROCESS_VERSION, PixelConfig, encode_png, scale, to_model_input
from data.taxonomy import taxonomy
from train.evaluation.evaluate import CHAMPION, Evaluation, evaluate
from train.evaluation.gates import Gates
from train.metrics.calibration import CalibrationConfig, calibrate
from train.tracking import mlflow_runs

ROOT = Path(__file__).resolve().parents[2]
SIDE = 32
PIXELS = PixelConfig(side=SIDE)
LABELS = Gates().required_classes
COUNTS = {"train": 240, "validation": 120, "test": 200}
NAME, KWARGS = "vit_tiny_patch16_224", {"depth": 1, "in_chans": 1, "num_classes": 10, "img_size": SIDE}


class Platform:
    settings: Settings
    env: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class Shelf:
    """A dataset version, and model versions to be judged on it."""

    platform: Any
    dataset_version: str
    run_id: str
    card: dict[str, Any]
    weights: dict[str, torch.Tensor]

    @property
    def registry(self) -> Registry:
        return Registry(self.platform.settings)

    def register(self, weights: dict[str, torch.Tensor], **change: Any) -> str:
        """A new version with these weights and this change of the card; returns its number."""
        card = {**self.card, "nonce": uuid.uuid4().hex, **change}
        files = {
            "card.json": json.dumps(card).encode(),
            "model.safetensors": safetensors.torch.save(weights),
        }
        key = bundles.publish(ObjectStore(self.platform.settings), files)
        return self.registry.register(VIT, key, self.run_id, {})

    def good(self, **change: Any) -> str:
        return self.register(self.weights, **change)

    def broken(self) -> str:
        """It never answers tuberculosis."""
        weights = {name: one.clone() for name, one in self.weights.items()}
        weights["head.bias"][taxonomy().names.index("tuberculosis")] -= 1000
        return self.register(weights)

    def evaluate(self, version: str) -> Evaluation:
        return evaluate(self.platform.settings, version, Gates(), "development")


def picture(label: str, rng: np.random.Generator) -> np.ndarray:
    """A film of 256 pixels: the class is a band at its height of the lungs, normal has none."""
    small_HW = rng.integers(40, 110, (SIDE, SIDE)).astype(np.uint8)
    if label != "normal":
        top = 4 * LABELS.index(label) + 2
        small_HW[top : top + 4, 6:26] += 120
    return np.kron(small_HW, np.ones((8, 8), np.uint8))


def part(
    store: ObjectStore, originals: Originals, version: str, split: str
) -> tuple[dict[str, Any], np.ndarray, np.ndarray]:
    """Write one side of a dataset version and its originals; returns its entry, its pixels and labels."""
    rng = np.random.default_rng(list(COUNTS).index(split))
    rows, pixels, labels = [], [], []
    for nth in range(COUNTS[split]):
        label = LABELS[nth % len(LABELS)]
        shown_HW = picture(label, rng)
        blob = encode_png(shown_HW)
        digest = hashlib.sha256(blob).hexdigest()
        if split == "test":
            originals.put(RAW, digest, blob)
        pixels.append(scale(shown_HW, PIXELS))
        labels.append(taxonomy().names.index(label))
        rows.append(
            {
                "sample_hash": digest,
                "pixels": pixels[-1].tobytes(),
                "label_index": labels[-1],
                "group_key": f"{split}-{nth // 2}",
                "source": "clinic-a" if nth % 3 else "clinic-b",
                "site": None,
                "sex": "F" if nth // 2 % 2 else "M",
                "age": float(20 + nth % 60),
                "view": "PA",
                "sha256": digest,
            }
        )
    written = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), written)
    key = versions.part_key(version, split, 0)
    store.put(versions.BUCKET, key, written.getvalue())
    entry = {
        "key": key,
        "split": split,
        "rows": len(rows),
        "sha256": hashlib.sha256(written.getvalue()).hexdigest(),
    }
    return entry, np.stack(pixels), np.array(labels)


def learned(pixels_NHW: np.ndarray, labels_N: np.ndarray) -> torch.nn.Module:
    torch.manual_seed(0)
    model: torch.nn.Module = timm.create_model(NAME, pretrained=False, **KWARGS)
    optimizer = torch.optim.AdamW(model.parameters(), 2e-3)
    x_NCHW, y_N = torch.from_numpy(to_model_input(pixels_NHW, PIXELS)), torch.from_numpy(labels_N)
    order = np.random.default_rng(0)
    for _ in range(8):
        for batch_B in np.array_split(order.permutation(len(y_N)), 15):
            optimizer.zero_grad()
            F.cross_entropy(model(x_NCHW[batch_B]), y_N[batch_B], label_smoothing=0.05).backward()
            optimizer.step()
    return model.eval()


@pytest.fixture(scope="module")
def shelf(platform: Any) -> Iterator[Shelf]:
    settings = platform.settings
    store, originals = ObjectStore(settings), Originals.of(settings)
    version = f"judged{uuid.uuid4().hex[:10]}"
    made = {split: part(store, originals, version, split) for split in COUNTS}
    described = {
        "version": version,
        "classes": list(taxonomy().names),
        "parts": [entry for entry, _, _ in made.values()],
        "synthetic": False,
        "sources": {"clinic-a": 373, "clinic-b": 187},
        "licenses": {"CC0-1.0": 560},
        "settings": {"pixels": asdict(PIXELS), "preprocess_version": PREPROCESS_VERSION},
    }
    versions.publish(store, version, described)
    model = learned(*made["train"][1:])
    with torch.inference_mode():
        held_out = model(torch.from_numpy(to_model_input(made["validation"][1], PIXELS))).numpy()
    card = {
        "format": 1,
        "model": VIT,
        "preprocess_version": PREPROCESS_VERSION,
        "dataset_version": version,
        "synthetic": False,
        "git_commit": "abc",
        "run_id": "",
        "classes": list(taxonomy().names),
        "architecture": {"timm": NAME, "kwargs": KWARGS},
        "pixels": asdict(PIXELS),
        "parameters": 1,
        "calibration": asdict(calibrate(held_out, made["validation"][2], CalibrationConfig())),
    }
    mlflow = mlflow_runs.client(settings.mlflow_tracking_uri)
    run_id = mlflow_runs.start_run(mlflow, version, version, {})
    weights = {name: one.detach().contiguous() for name, one in model.state_dict().items()}
    shelf = Shelf(
        platform=platform,
        dataset_version=version,
        run_id=run_id,
        card={**card, "run_id": run_id},
        weights=weights,
    )
    aliases = ("champion", "challenger")
    before = {alias: shelf.registry.version_by_alias(VIT, alias) for alias in aliases}
    yield shelf
    for alias, number in before.items():
        if number is not None:
            shelf.registry.set_alias(VIT, alias, number)
        elif shelf.registry.version_by_alias(VIT, alias) is not None:
            shelf.registry.remove_alias(VIT, alias)


@pytest.fixture
def champion(shelf: Shelf) -> Callable[[str | None], None]:
    """Make a version the champion, or none."""

    def make(version: str | None) -> None:
        if version is not None:
            shelf.registry.set_alias(VIT, CHAMPION, version)
        elif shelf.registry.version_by_alias(VIT, CHAMPION) is not None:
            shelf.registry.remove_alias(VIT, CHAMPION)

    return make


def why(found: Evaluation, name: str) -> str:
    return next(one.why for one in found.details if one.name == name)


def test_a_good_model_passes_and_mlflow_has_figures_tables_pictures_and_card(
    shelf: Shelf, champion: Callable[[str | None], None], tmp_path: Path
) -> None:
    champion(None)
    found = shelf.evaluate(shelf.good())
    assert found.verdict == "pass", [one.why for one in found.details if one.halts]
    assert found.alias == "champion"
    for name in ("inverted", "lateral", "blank", "photograph", "rotation", "border_crop"):
        assert found.gates[f"behaviour_{name}"] == "pass"
    assert found.gates["champion"] == "not evaluable"
    mlflow = shelf.registry.client
    metrics = mlflow.get_run(shelf.run_id).data.metrics
    for name in (
        "accuracy_low",
        "macro_f1_high",
        "recall_normal",
        "sensitivity_covid19",
        "behaviour_rotation",
    ):
        assert f"test_{name}" in metrics
    (tested,) = mlflow.get_run(shelf.run_id).inputs.dataset_inputs
    assert (tested.dataset.name, tested.dataset.digest) == ("raydiology-test", shelf.dataset_version)
    files = {
        one.path.removeprefix("evaluation/") for one in mlflow.list_artifacts(shelf.run_id, "evaluation")
    }
    assert files == {
        *("evaluation.json", "card.md", "gates.csv", "classes.csv", "sources.csv", "source_classes.csv"),
        "confusion.csv",
        *("subgroups.csv", "abstention.csv", "confusion.png", "reliability.png", "roc.png", "abstention.png"),
    }
    read = Path(mlflow.download_artifacts(shelf.run_id, "evaluation", str(tmp_path)))
    assert "| CC0-1.0 | 560 |" in (read / "card.md").read_text()
    details = json.loads((read / "evaluation.json").read_text())
    assert {one["name"]: one["verdict"] for one in details["gates"]} == found.gates
    assert details["probes"]["probes"][0]["view"] == "borders"


def test_a_model_with_a_broken_class_is_worse_than_the_champion_and_halts_with_exit_3(
    shelf: Shelf, champion: Callable[[str | None], None]
) -> None:
    good, broken = shelf.good(), shelf.broken()
    champion(good)
    done = subprocess.run(
        [sys.executable, "-m", "jobs.evaluate", "--model_version", broken],
        cwd=ROOT,
        env=shelf.platform.env,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 3, done.stdout + done.stderr
    line = json.loads(done.stdout.strip().splitlines()[-1])
    assert (line["status"], line["verdict"], line["alias"]) == ("halted", "fail", None)
    assert (line["gates"]["recall_tuberculosis"], line["gates"]["champion"]) == ("fail", "fail")
    assert line["gates"]["accuracy"] == "pass"
    assert "right where it is wrong 0 times, wrong where it is right" in line["why"]["champion"]
    tags = shelf.registry.tags(VIT, broken)
    assert (tags["verdict"], "champion" in tags["halted_by"]) == ("fail", True)
    assert shelf.registry.version_by_alias(VIT, CHAMPION) == good


def test_a_champion_that_takes_other_pixels_answers_the_same_images_made_from_the_originals(
    shelf: Shelf, champion: Callable[[str | None], None]
) -> None:
    torch.manual_seed(1)
    kwargs = {**KWARGS, "img_size": 2 * SIDE}
    untrained = timm.create_model(NAME, pretrained=False, **kwargs)
    old = shelf.register(
        {name: one.detach().contiguous() for name, one in untrained.state_dict().items()},
        architecture={"timm": NAME, "kwargs": kwargs},
        pixels=asdict(replace(PIXELS, side=2 * SIDE)),
    )
    champion(old)
    found = shelf.evaluate(shelf.good())
    assert found.gates["champion"] == "pass"
    (gate,) = [one for one in found.details if one.name == "champion"]
    assert gate.images == COUNTS["test"]
    assert gate.measured is not None
    assert gate.measured > 0.5
    assert found.alias == "challenger"


def test_a_champion_that_cannot_be_asked_halts_and_says_why(
    shelf: Shelf, champion: Callable[[str | None], None]
) -> None:
    champion(shelf.good(preprocess_version="0"))
    found = shelf.evaluate(shelf.good())
    assert (found.gates["champion"], found.verdict, found.alias) == ("not evaluable", "fail", None)
    assert "trained on preprocessing 0" in why(found, "champion")
    champion(shelf.good(classes=["flu", *shelf.card["classes"][1:]]))
    assert "taxonomy lacks: flu" in why(shelf.evaluate(shelf.good()), "champion")
    champion(shelf.registry.register(VIT, f"bundles/{uuid.uuid4().hex}", None, {}))
    found = shelf.evaluate(shelf.good())
    assert "no complete release bundle" in why(found, "champion")


def test_a_card_that_is_too_sure_fails_the_calibration(
    shelf: Shelf, champion: Callable[[str | None], None]
) -> None:
    """The temperature of the card makes every answer timid: the error is on the other side, and as large."""
    champion(None)
    card = {**shelf.card["calibration"], "temperature": 20.0}
    found = shelf.evaluate(shelf.good(calibration=card))
    assert (found.gates["calibration"], found.verdict) == ("fail", "fail")
    assert found.metrics["ece"] > found.metrics["ece_before"]


def test_what_was_judged_again_says_the_same(shelf: Shelf, champion: Callable[[str | None], None]) -> None:
    champion(None)
    version = shelf.good()
    first, second = shelf.evaluate(version), shelf.evaluate(version)
    assert first.metrics == second.metrics
    assert [one.why for one in first.details] == [one.why for one in second.details]
