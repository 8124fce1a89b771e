"""The export benchmarks: how much faster INT8 is than float32 in ONNX Runtime, and what it costs in accuracy.

One thread on one core; both sides take turns and CPU time is counted, so that other work on the machine changes little.
"""

import os
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch

from cluster.objects import ObjectStore
from cluster.releases.registry import VIT, Registry
from cluster.settings import Settings
from jobs.bench.figure import Figure, in_turns
from jobs.runtime.entry import JobError
from train.config import ModelConfig
from train.export.export import ExportConfig, measure
from train.export.onnx import OnnxModel, quantise_dynamic, quantise_static, to_onnx
from train.export.variants import FLOAT32, accuracy_loss, batched
from train.release import publish
from train.vit.model import build_vit

MODEL, SIDE = ModelConfig(name="vit_small_patch16_224"), 224
BATCH, ROUNDS, WARM_UP = 8, 10, 2
LARGEST_LOSS_POINTS = 1.0


def int8_vs_fp32() -> Figure:
    """Time ViT-small at 224 pixels with weights from a seed: what the weights are does not change the time."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    graph = to_onnx(build_vit(MODEL, classes=10, side=SIDE), SIDE)
    inputs_NCHW = np.random.default_rng(0).standard_normal((BATCH, 1, SIDE, SIDE), np.float32)
    graphs = {
        "float32": graph,
        "dynamic": quantise_dynamic(graph),
        "static": quantise_static(graph, inputs_NCHW),
    }
    rates = images_per_core_s({name: OnnxModel(blob) for name, blob in graphs.items()}, inputs_NCHW)
    better = max(("dynamic", "static"), key=lambda name: rates[name])
    peer = f"float32 ONNX; {better} INT8{_circumstances()}"
    return Figure.of("int8_vs_fp32", rates[better], rates["float32"], peer, "images a core-second")


def images_per_core_s(models: dict[str, OnnxModel], inputs_NCHW: np.ndarray) -> dict[str, float]:
    """Measure the median of several rounds, on one core of this process's own choosing, all models taking turns."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    sides = {name: partial(model.logits, inputs_NCHW) for name, model in models.items()}
    try:
        seconds = in_turns(sides, rounds=ROUNDS, warm_up=WARM_UP, clock=time.process_time)
    finally:
        os.sched_setaffinity(0, allowed)
    return {name: len(inputs_NCHW) / median_s for name, median_s in seconds.items()}


def int8_accuracy_loss() -> Figure:
    """Measure the accuracy that the champion loses as INT8 on test images, in points: a 95 % bound over patients."""
    settings = Settings.from_env()
    store, registry = ObjectStore(settings), Registry(settings)
    version = registry.version_by_alias(VIT, "champion")
    if version is None:
        raise JobError("there is no champion; run `make demo` first")
    card, weights = publish.read(store, registry.bundle_key(VIT, version))
    measured, pixels = measure(store, card, weights, ExportConfig()), card.pixels
    float32_NK, int8_NK = (
        batched(measured.forms.forwards[name], measured.test.pixels_NHW, pixels)
        for name in (FLOAT32, measured.int8)
    )
    _, at_most = accuracy_loss(float32_NK, int8_NK, measured.test.labels_N, measured.test.groups)
    peer = f"the most that may be lost; {measured.int8}, {len(measured.test)} images"
    return Figure.of(
        "int8_accuracy_loss", 100 * at_most, LARGEST_LOSS_POINTS, peer, "points, upper 95 % bound"
    )


def _circumstances() -> str:
    """Describe what a reader of the figure has to know of the machine."""
    instructions = "" if "vnni" in Path("/proc/cpuinfo").read_text() else "; no VNNI"
    return instructions + ("; other work ran" if os.getloadavg()[0] > 1.5 else "")


BENCHMARKS = (int8_vs_fp32, int8_accuracy_loss)
