"""Two architectures, a plain ViT and the LeViT of the demo, taught five bands of brightness in a few steps."""

from dataclasses import dataclass

import numpy as np
import onnx
import pytest
import torch

from data.imaging.preprocess import PixelConfig, to_model_input
from jobs.recipes import LEVIT
from train.config import ModelConfig
from train.export.onnx import (
    OPSET,
    OnnxError,
    OnnxModel,
    quantise_dynamic,
    quantise_static,
    to_onnx,
)
from train.export.variants import of_torch
from train.vit.model import build_vit

SIDE = 64
PIXELS = PixelConfig(side=SIDE)
VIT = ModelConfig(name="vit_tiny_patch16_224", kwargs={"depth": 2, "embed_dim": 96, "num_heads": 3})


def operators(graph: bytes) -> set[str]:
    return {node.op_type for node in onnx.load_model_from_string(graph).graph.node}


def bands(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Noise with one of five bands, which is the label."""
    rng = np.random.default_rng(seed)
    labels_N = np.arange(count) % 5
    pixels_NHW = rng.integers(0, 120, (count, SIDE, SIDE), dtype=np.uint8)
    for row, label in zip(pixels_NHW, labels_N, strict=True):
        row[12 * label : 12 * label + 12] += 100
    return to_model_input(pixels_NHW, PIXELS), labels_N


@dataclass(frozen=True)
class Learned:
    model: torch.nn.Module
    graph: bytes
    before: dict[str, torch.Tensor]
    """The model's weights before its graph was written."""


@pytest.fixture(scope="module", params=[VIT, LEVIT], ids=["vit", "levit"])
def learned(request: pytest.FixtureRequest) -> Learned:
    torch.manual_seed(0)
    torch.set_num_threads(1)  # many threads on small tensors spend their time waiting for one another
    model = build_vit(request.param, classes=5, side=SIDE).train()
    optimizer = torch.optim.AdamW(model.parameters(), 2e-3)
    for step in range(40 if request.param is VIT else 25):
        inputs_NCHW, labels_N = bands(20, step)
        loss = torch.nn.functional.cross_entropy(
            model(torch.from_numpy(inputs_NCHW)), torch.from_numpy(labels_N)
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()
    before = {name: one.clone() for name, one in model.state_dict().items()}
    return Learned(model, to_onnx(model, SIDE), before)


def test_the_graph_answers_as_torch_does_whatever_the_batch(learned: Learned) -> None:
    inputs_NCHW, _ = bands(7, 99)
    expected_NK = of_torch(learned.model)(inputs_NCHW)
    assert np.abs(expected_NK).max() > 0.5
    model = OnnxModel(learned.graph)
    for count in (1, 2, 7):
        assert np.abs(model.logits(inputs_NCHW[:count]) - expected_NK[:count]).max() < 1e-4


def test_the_graph_is_of_the_current_opset_and_fused(learned: Learned) -> None:
    import onnx

    graph = onnx.load_model_from_string(learned.graph)
    assert [(one.domain, one.version) for one in graph.opset_import if one.domain == ""] == [("", OPSET)]
    assert graph.graph.input[0].type.tensor_type.shape.dim[0].dim_param
    kinds = operators(learned.graph)
    assert "BatchNormalization" not in kinds
    assert "Erf" not in kinds
    assert "Attention" in kinds or "HardSwish" in kinds  # LeViT adds a bias of its own inside its attention


def test_writing_a_graph_leaves_the_model_as_it_was(learned: Learned) -> None:
    after = learned.model.state_dict()
    assert learned.before.keys() == after.keys()
    assert all(torch.equal(one, after[name]) for name, one in learned.before.items())


def test_int8_is_smaller_and_keeps_the_labels(learned: Learned) -> None:
    inputs_NCHW, labels_N = bands(100, 7)
    forms = {
        "dynamic": quantise_dynamic(learned.graph),
        "static": quantise_static(learned.graph, bands(40, 8)[0]),
    }
    right = (of_torch(learned.model)(inputs_NCHW).argmax(axis=1) == labels_N).mean()
    assert right > 0.7
    for name, graph in forms.items():
        kinds = operators(graph)
        assert ("MatMulInteger" if name == "dynamic" else "QuantizeLinear") in kinds
        assert len(graph) < 0.5 * len(learned.graph)
        assert (OnnxModel(graph).logits(inputs_NCHW).argmax(axis=1) == labels_N).mean() > right - 0.05


def test_a_static_answer_does_not_depend_on_the_batch_and_a_dynamic_one_does(learned: Learned) -> None:
    inputs_NCHW, _ = bands(6, 5)
    inputs_NCHW[1:] *= 3  # neighbours with another range
    static, dynamic = (
        OnnxModel(graph)
        for graph in (quantise_static(learned.graph, inputs_NCHW), quantise_dynamic(learned.graph))
    )
    gaps = [
        np.abs(one.logits(inputs_NCHW)[0] - one.logits(inputs_NCHW[:1])[0]).max() for one in (static, dynamic)
    ]
    assert gaps[0] < 1e-4 < gaps[1]


def test_calibration_images_change_the_static_graph(learned: Learned) -> None:
    one, other = (
        quantise_static(learned.graph, bands(20, seed)[0] * scale) for seed, scale in ((1, 1), (2, 4))
    )
    assert one != other


def test_what_cannot_be_traced_is_one_line() -> None:
    class Moody(torch.nn.Module):
        def forward(self, x_NCHW: torch.Tensor) -> torch.Tensor:
            return x_NCHW if x_NCHW.sum().item() > 0 else x_NCHW * 2

    with pytest.raises(OnnxError, match="Moody cannot be written as ONNX") as caught:
        to_onnx(Moody(), SIDE)
    assert "\n" not in str(caught.value)
