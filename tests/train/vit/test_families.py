"""Each family as a network of its own: built, trained over a few steps, exported, served and explained."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
import torch.distributed as dist
from timm.models import is_model, list_models
from torch.distributed.fsdp import FSDPModule

from data.imaging.preprocess import PixelConfig, to_model_input
from data.model_card import CARD_FILE, OUTLIERS_FILE, WEIGHTS_FILE
from serve.classifier.classifier import Classifier
from tests.cards import card
from train.config import ModelConfig, OptimConfig, TrainConfig
from train.config_checks import TrainConfigError
from train.export.onnx import OnnxModel, to_onnx
from train.release import fit_ood
from train.release.fit_ood import OutlierConfig
from train.strategies.memory_estimate import estimate
from train.strategies.strategy import wrap
from train.vit.families import FAMILIES, blocks, family_of
from train.vit.inference import features, logits, rebuild
from train.vit.model import architecture_of, build_vit, timm_kwargs

SIDE, CLASSES, IMAGES = 64, ("normal", "covid19", "tuberculosis"), 12
PIXELS = PixelConfig(side=SIDE)
PIXELS_NHW = np.random.default_rng(0).integers(0, 256, (IMAGES, SIDE, SIDE)).astype(np.uint8)
SMALL_SWIN = {"embed_dim": 16, "depths": [1, 1, 2, 1], "num_heads": [1, 1, 2, 2], "window_size": 4}
NETWORKS = {
    "convnext": (ModelConfig(name="test_convnext", kwargs={"depths": [1, 1, 2, 1]}, drop_path_rate=0.1), 5),
    "swin_transformer": (ModelConfig(name="swin_tiny_patch4_window7_224", kwargs=SMALL_SWIN), 5),
}
"""Small networks of the families that are no plain Vision Transformer, and how many blocks they have."""


@pytest.fixture
def one_rank() -> Iterator[None]:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def settings(model: ModelConfig) -> TrainConfig:
    return TrainConfig(
        model=model,
        optim=OptimConfig(layer_decay=0.8),
        strategy="fsdp",
        fsdp_unit="block",
        activation_checkpointing=True,
        num_workers=1,
        batch_size=IMAGES,
    )


def trained(config: TrainConfig, block_count: int) -> tuple[bytes, list[float]]:
    """Weights after five steps on a batch of noise, and the loss of each step."""
    torch.manual_seed(0)
    model = build_vit(config.model, classes=len(CLASSES), side=SIDE).train()
    strategy = wrap(model, config, torch.device("cpu"))
    sharded = [part for part in model.modules() if isinstance(part, FSDPModule)]
    assert len(sharded) == block_count + 1, "each block by itself, and the rest"
    x_BCHW = torch.from_numpy(to_model_input(PIXELS_NHW, PIXELS))
    labels_B = torch.arange(IMAGES) % len(CLASSES)
    losses = []
    for _ in range(5):
        loss = torch.nn.functional.cross_entropy(strategy.logits(x_BCHW), labels_B)
        strategy.backward(loss)
        assert np.isfinite(strategy.update(2e-3))
        losses.append(float(loss.detach()))
    return safetensors.torch.save(strategy.full_weights()), losses


def bundle(folder: Path, model: ModelConfig, weights: bytes) -> Path:
    architecture = architecture_of(model, classes=len(CLASSES), side=SIDE)
    known_ND = features(rebuild(architecture, weights), PIXELS_NHW, PIXELS)
    assert known_ND is not None
    fitted = fit_ood.fit(known_ND, np.arange(IMAGES) % len(CLASSES), known_ND, OutlierConfig())
    made = card(
        classes=list(CLASSES),
        pixels={"side": SIDE},
        architecture=vars(architecture),
        outliers=vars(fitted.rule()),
    )
    for name, blob in (
        (CARD_FILE, made.to_json()),
        (WEIGHTS_FILE, weights),
        (OUTLIERS_FILE, fitted.as_file()),
    ):
        (folder / name).write_bytes(blob)
    return folder


@pytest.mark.usefixtures("one_rank")
@pytest.mark.parametrize("family", NETWORKS)
def test_a_network_learns_and_is_exported_served_and_explained(family: str, tmp_path: Path) -> None:
    model, block_count = NETWORKS[family]
    weights, losses = trained(settings(model), block_count)
    assert np.isfinite(losses).all()
    assert losses[-1] < losses[0]

    network = rebuild(architecture_of(model, classes=len(CLASSES), side=SIDE), weights)
    expected_NK = logits(network, PIXELS_NHW, PIXELS)
    assert np.ptp(expected_NK) > 0
    exported_NK = OnnxModel(to_onnx(network, SIDE)).logits(to_model_input(PIXELS_NHW, PIXELS))
    assert np.abs(exported_NK - expected_NK).max() < 1e-4

    served = Classifier(bundle(tmp_path, model, weights))
    assert np.array_equal(served.logits(PIXELS_NHW), expected_NK)
    assert np.isfinite(served.judged(PIXELS_NHW)).all()
    heat_HW = served.heat(PIXELS_NHW[0], 1)
    assert heat_HW.shape == (SIDE, SIDE)
    assert 0 <= heat_HW.min() < heat_HW.max() <= 1


@pytest.mark.parametrize("family", NETWORKS)
def test_layers_further_down_have_lower_rates_and_memory_is_estimated(family: str) -> None:
    from train.vit.model import parameter_groups

    model, _ = NETWORKS[family]
    network = build_vit(model, classes=len(CLASSES), side=SIDE)
    groups = parameter_groups(network, OptimConfig(layer_decay=0.5))
    scale = {id(tensor): group["lr_scale"] for group in groups for tensor in group["params"]}
    assert len(scale) == len(list(network.parameters()))
    first, last = (next(blocks(network, model.name)[nth].parameters()) for nth in (0, -1))
    assert scale[id(first)] < scale[id(last)] < scale[id(network.head.fc.weight)] == 1
    memory = estimate(settings(model), classes=len(CLASSES), side=SIDE)
    assert memory.parameters == sum(tensor.numel() for tensor in network.parameters())
    assert memory.activations > 0


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_is_a_module_of_timm_that_takes_what_the_table_says(name: str) -> None:
    """Built without memory; the smallest by name that takes a side of 64 or 224 pixels."""
    hints = ("test_", "atto", "nano", "xxs", "tiny", "xs", "_s", "small", "m0", "88m", "base")
    names = sorted(list_models(module=name), key=lambda model: (rank(model, hints), len(model)))
    assert family_of(names[0]) is FAMILIES[name]
    model, network = smallest(names)
    assert bool(blocks(network, model)) == (FAMILIES[name].block_list is not None)


def rank(model: str, hints: tuple[str, ...]) -> int:
    return next((nth for nth, hint in enumerate(hints) if hint in model), len(hints))


def smallest(names: list[str]) -> tuple[str, torch.nn.Module]:
    for model in names:
        for side in (64, 224):
            try:
                with torch.device("meta"):
                    return model, build_vit(ModelConfig(name=model), classes=3, side=side)
            except TrainConfigError:
                continue
    raise AssertionError(f"none of {names} can be built")


@pytest.mark.parametrize(
    ("name", "says"),
    [("resnet18", "resnet18 is of another family"), ("vit_of_nowhere", "vit_of_nowhere is no model of timm")],
)
def test_another_family_is_refused_in_one_line_that_names_the_families(name: str, says: str) -> None:
    assert is_model(name) == ("another family" in says)
    with pytest.raises(TrainConfigError, match=says) as caught:
        build_vit(ModelConfig(name=name), classes=3, side=32)
    assert "\n" not in str(caught.value)
    assert all(family in str(caught.value) for family in ("convnext", "levit", "swin_transformer"))


def test_the_side_is_given_to_families_that_take_it_and_tags_of_weights_do_not_matter() -> None:
    known: dict[str, Any] = {"in_chans": 1, "num_classes": 3}
    vit, convnext = ModelConfig(name="vit_tiny_patch16_224"), ModelConfig(name="convnext_atto.d2_in1k")
    assert timm_kwargs(vit, classes=3, side=32) == {**known, "img_size": 32}
    assert timm_kwargs(convnext, classes=3, side=32) == known
