"""Export a registered model version: ONNX and INT8, as an edge and a cloud variant under the same version.

The edge variant runs anywhere with onnxruntime, numpy and Pillow; the cloud variant has full precision, as
safetensors and as ONNX. Each is a signed release bundle of its own, whose card compares all forms. An export may be
repeated. INT8 ranges come from training images only, the temperature from validation images, the table from test
images.
"""

import json
import tempfile
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version as installed
from pathlib import Path

import numpy as np
import torch

from cluster.objects import ObjectStore
from cluster.progress import OnProgress, silent
from cluster.releases import bundles
from cluster.releases.registry import VIT, Registry
from cluster.settings import Settings
from data.dataset.versions import SplitTable, load_split
from data.imaging.preprocess import PixelConfig, to_model_input
from data.model_card import CARD_FILE, WEIGHTS_FILE, ModelCard, Runtime
from train.export import onnx, variants
from train.export.onnx import OnnxModel
from train.export.variants import Variant
from train.metrics.calibration import CalibrationConfig, calibrate
from train.release import publish
from train.release.edge_runner import runner
from train.tracking import mlflow_runs
from train.vit.inference import rebuild

EDGE, CLOUD = "edge", "cloud"
EDGE_MODEL, CLOUD_MODEL = "model.int8.onnx", "model.onnx"
RUNNER, REQUIREMENTS = "predict.py", "requirements.txt"
EDGE_PACKAGES = ("numpy", "onnxruntime", "pillow")
STEPS = 5


class ExportError(ValueError):
    """The version cannot be exported; the message says why in one line."""


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    calibration_images: int = 256
    """Number of training images, balanced over the classes, from which static INT8 takes its ranges."""
    largest_loss: float = 0.01
    """Largest loss of validation accuracy for which the faster INT8 form is chosen for the edge variant."""
    latency_runs: int = 50
    """Number of runs, one image each, whose median is given."""

    def __post_init__(self) -> None:
        for name in ("calibration_images", "latency_runs"):
            if getattr(self, name) < 1:
                raise ExportError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not 0 <= self.largest_loss <= 1:
            raise ExportError(f"largest_loss must lie in [0, 1], got {self.largest_loss}")


@dataclass(frozen=True, kw_only=True)
class Exported:
    """A version's export: its forms and the keys of both bundles."""

    model_version: str
    variants: list[Variant]
    int8: str
    """Form of the edge variant."""
    bundle_edge: str
    bundle_cloud: str


@dataclass(frozen=True, kw_only=True)
class Forms:
    """One model, callable in each form."""

    graphs: dict[str, bytes]
    """Name of the form → ONNX graph."""
    forwards: dict[str, variants.Forward]
    """The same, after PyTorch, which is the first."""


@dataclass(frozen=True, kw_only=True)
class MeasuredForms:
    """A model version measured in all its forms."""

    forms: Forms
    rows: list[Variant]
    int8: str
    """The INT8 form for the edge."""
    validation: SplitTable
    test: SplitTable


def export(
    settings: Settings,
    model_version: str,
    config: ExportConfig,
    progress: OnProgress = silent,
) -> Exported:
    """Export, measure, publish both variants and tag the version with them.

    Raises:
        ExportError, ReleaseError, OnnxError, RegistryError, BundleError, VersionError: one line each.
    """
    store, registry = ObjectStore(settings), Registry(settings)
    progress(0, STEPS, "reading the release bundle")
    card, weights = publish.read(store, registry.bundle_key(VIT, model_version))
    measured = measure(store, card, weights, config, progress)
    exported_card = replace(
        card,
        model_version=model_version,
        variants=[row.as_dict() for row in measured.rows],
        outliers=None,  # runners see logits only, and INT8 has features of its own
    )
    progress(3, STEPS, "publishing both variants")
    exported = Exported(
        model_version=model_version,
        variants=measured.rows,
        int8=measured.int8,
        bundle_edge=bundles.publish(
            store, edge_files(exported_card, measured.forms, measured.int8, measured.validation)
        ),
        bundle_cloud=bundles.publish(store, cloud_files(exported_card, measured.forms, weights)),
    )
    progress(4, STEPS, "noting them at the version")
    _note(settings, registry, exported, card.run_id)
    progress(STEPS, STEPS, "exported")
    return exported


def measure(
    store: ObjectStore,
    card: ModelCard,
    weights: bytes,
    config: ExportConfig,
    progress: OnProgress = silent,
) -> MeasuredForms:
    """Build every form of a release's model and measure it on the splits of its dataset version.

    Raises:
        ExportError, OnnxError, VersionError: one line each.
    """
    version, pixels = card.dataset_version, card.pixels
    train, validation, test = (load_split(store, version, split) for split in ("train", "validation", "test"))
    for name, table in (("train", train), ("validation", validation), ("test", test)):
        if not len(table):
            raise ExportError(f"dataset version {version} has no {name} image: add patients")
    progress(1, STEPS, "writing ONNX and INT8")
    forms = make_forms(card, weights, calibration_inputs(train, pixels, config.calibration_images))
    progress(2, STEPS, "measuring on the test split")
    rows = variants.measure(
        forms.forwards,
        {name: len(graph) for name, graph in forms.graphs.items()} | {variants.TORCH: len(weights)},
        validation=validation,
        test=test,
        pixels=pixels,
        latency_runs=config.latency_runs,
    )
    int8 = variants.better_int8(rows, config.largest_loss).name
    return MeasuredForms(forms=forms, rows=rows, int8=int8, validation=validation, test=test)


def calibration_inputs(table: SplitTable, pixels: PixelConfig, count: int) -> np.ndarray:
    """Choose model inputs of `count` images, balanced over the classes; the same table gives the same images."""
    by_hash = sorted(range(len(table)), key=lambda i: table.sample_hashes[i])
    turn: dict[int, int] = {}
    ranked = []
    for i in by_hash:
        label = int(table.labels_N[i])
        turn[label] = turn.get(label, 0) + 1
        ranked.append((turn[label], label, i))
    chosen = [i for _, _, i in sorted(ranked)[:count]]
    return to_model_input(table.pixels_NHW[chosen], pixels)


def make_forms(card: ModelCard, weights: bytes, calibration_NCHW: np.ndarray) -> Forms:
    """Make the model as PyTorch and as three graphs, each on one thread."""
    torch.set_num_threads(1)
    model = rebuild(card.architecture, weights)
    float32 = onnx.to_onnx(model, card.pixels.side)
    graphs = {
        variants.FLOAT32: float32,
        variants.DYNAMIC: onnx.quantise_dynamic(float32),
        variants.STATIC: onnx.quantise_static(float32, calibration_NCHW),
    }
    forwards = {variants.TORCH: variants.of_torch(model)}
    return Forms(
        graphs=graphs, forwards=forwards | {name: OnnxModel(graph).logits for name, graph in graphs.items()}
    )


def edge_files(card: ModelCard, forms: Forms, int8: str, validation: SplitTable) -> dict[str, bytes]:
    """Collect the INT8 graph, the runner, its requirements, and a card with the INT8 model's own calibration."""
    logits_NK = variants.batched(forms.forwards[int8], validation.pixels_NHW, card.pixels)
    own = replace(
        card,
        variant=EDGE,
        runtime=Runtime(model=EDGE_MODEL, form=int8),
        calibration=calibrate(logits_NK, validation.labels_N, CalibrationConfig()),
    )
    files = {
        EDGE_MODEL: forms.graphs[int8],
        RUNNER: runner().encode(),
        REQUIREMENTS: "".join(f"{name}=={installed(name)}\n" for name in EDGE_PACKAGES).encode(),
    }
    return _with_card(files, own)


def cloud_files(card: ModelCard, forms: Forms, weights: bytes) -> dict[str, bytes]:
    """Collect the full-precision model as safetensors and as ONNX, with its card."""
    files = {WEIGHTS_FILE: weights, CLOUD_MODEL: forms.graphs[variants.FLOAT32]}
    runtime = Runtime(model=CLOUD_MODEL, form=variants.FLOAT32)
    return _with_card(files, replace(card, variant=CLOUD, runtime=runtime))


def _with_card(files: dict[str, bytes], card: ModelCard) -> dict[str, bytes]:
    return {**files, CARD_FILE: replace(card, files=publish.digests(files)).to_json()}


def _note(settings: Settings, registry: Registry, exported: Exported, run_id: str) -> None:
    """Tag the version with its bundles, and log table and figures to the run that trained it."""
    registry.set_variant(VIT, exported.model_version, EDGE, exported.bundle_edge)
    registry.set_variant(VIT, exported.model_version, CLOUD, exported.bundle_cloud)
    mlflow = mlflow_runs.client(settings.mlflow_tracking_uri)
    figures = {
        f"export/{row.name}/{name}": float(getattr(row, name))
        for row in exported.variants
        for name in ("bytes", "latency_ms", "accuracy", "accuracy_loss_at_most", "same_label")
    }
    mlflow_runs.log_figures(mlflow, run_id, figures)
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / "variants.md", Path(folder) / "variants.json"]
        paths[0].write_text(variants.table(exported.variants))
        paths[1].write_text(json.dumps(asdict(exported), indent=1))
        mlflow_runs.log_files(mlflow, run_id, paths, "export")
