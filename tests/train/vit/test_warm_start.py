from pathlib import Path

import pytest
import safetensors.torch
import timm
import torch

from data.model_card import ModelCard
from tests.cards import card
from train.config import ModelConfig
from train.config_checks import TrainConfigError
from train.vit.model import timm_kwargs
from train.vit.warm_start import check, pretrained

NAME = "vit_tiny_patch16_224"
CLASSES = ("a", "b", "c")


def champion() -> ModelCard:
    kwargs = timm_kwargs(ModelConfig(name=NAME), classes=3, side=32)
    return card(classes=list(CLASSES), architecture={"timm": NAME, "kwargs": kwargs})


def test_timm_s_weights_are_made_to_take_one_channel_and_ten_classes(tmp_path: Path) -> None:
    published = timm.create_model(NAME, pretrained=False, depth=1)
    safetensors.torch.save_file(published.state_dict(), tmp_path / "published.safetensors")
    overlay = {"file": str(tmp_path / "published.safetensors"), "hf_hub_id": None}
    config = ModelConfig(name=NAME, kwargs={"depth": 1, "pretrained_cfg_overlay": overlay}, start="timm")
    found = safetensors.torch.load(pretrained(config, classes=10, side=64))
    kernel = published.patch_embed.proj.weight.sum(dim=1, keepdim=True)
    assert torch.allclose(found["patch_embed.proj.weight"], kernel, atol=1e-6)
    assert torch.equal(found["blocks.0.mlp.fc1.weight"], published.blocks[0].mlp.fc1.weight)
    assert found["head.weight"].shape == (10, 192)
    assert found["pos_embed"].shape[1] == 1 + 4 * 4


def test_a_machine_without_the_internet_is_told_so_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(
        TrainConfigError, match=r"needs the internet once, or --train\.model\.start"
    ) as caught:
        pretrained(ModelConfig(name=NAME, start="timm"), classes=3, side=32)
    assert "\n" not in str(caught.value)


def test_a_champion_of_the_same_model_and_classes_is_taken() -> None:
    check(champion(), ModelConfig(name=NAME), classes=CLASSES, side=32, version="3")


@pytest.mark.parametrize(
    ("settings", "side", "classes", "message"),
    [
        (ModelConfig(name="vit_small_patch16_224"), 32, CLASSES, "xray-vit/3 is vit_tiny_patch16_224 with"),
        (ModelConfig(name=NAME, kwargs={"depth": 2}), 32, CLASSES, "this run is vit_tiny_patch16_224 with"),
        (ModelConfig(name=NAME), 64, CLASSES, "'img_size': 64"),
        (ModelConfig(name=NAME), 32, ("a", "b", "d"), "knows the classes a, b, c, the dataset has a, b, d"),
    ],
)
def test_a_champion_of_another_architecture_or_taxonomy_is_refused_in_one_line(
    settings: ModelConfig, side: int, classes: tuple[str, ...], message: str
) -> None:
    with pytest.raises(TrainConfigError, match=message) as caught:
        check(champion(), settings, classes=classes, side=side, version="3")
    assert "\n" not in str(caught.value)
