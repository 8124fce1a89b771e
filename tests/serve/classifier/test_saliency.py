"""Where a model looked: every architecture of the recipes, and what no map may pretend."""

import asyncio
import io
import json
import os
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file

from data.imaging.preprocess import PREPROCESS_VERSION, PixelConfig, to_model_input
from jobs.recipes import RECIPES
from serve.classifier.classifier import Classifier
from serve.classifier.saliency import HeatConfig, heat
from serve.classifier.single_slot import SingleSlotExecutor
from serve.front_door.heatmap_overlay import overlay
from train.vit.model import timm_kwargs

QUICK = HeatConfig(steps=4)
ARCHITECTURES = {
    (one().train.model.name, str(one().train.model.kwargs)): one().train.model for one in RECIPES.values()
}
SMALLER = {
    "vit_base_patch16_224": {"depth": 2},
    "vit_large_patch16_384": {"depth": 2, "embed_dim": 64, "num_heads": 2},
}
"""Their own size would take minutes here and is of no other kind."""


def model_of(name: str, side: int = 64, **kwargs: object) -> torch.nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made: torch.nn.Module = timm.create_model(name, in_chans=1, num_classes=10, img_size=side, **kwargs)
    return made.eval().requires_grad_(False)


def picture(side: int = 64, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (side, side)).astype(np.uint8)


@pytest.mark.parametrize("config", ARCHITECTURES.values(), ids=lambda one: one.name)
def test_every_architecture_of_the_recipes_gives_a_map_and_the_same_one_again(config: object) -> None:
    smaller = replace(config, kwargs={**config.kwargs, **SMALLER.get(config.name, {})})  # type: ignore
    kwargs = timm_kwargs(smaller, classes=10, side=64)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = timm.create_model(smaller.name, **kwargs).eval().requires_grad_(False)
    pixels = PixelConfig(side=64)
    with torch.inference_mode():  # as predictions do, whose caches must not stand in the gradient's way
        before_NC = model(torch.from_numpy(to_model_input(picture()[None], pixels)))
    first_HW = heat(model, picture(), 3, pixels, QUICK)
    assert first_HW.shape == (64, 64)
    assert first_HW.dtype == np.float32
    assert 0 <= first_HW.min() < first_HW.max() <= 1
    assert np.array_equal(first_HW, heat(model, picture(), 3, pixels, QUICK))
    assert not np.array_equal(first_HW, heat(model, picture(), 4, pixels, QUICK))
    with torch.inference_mode():
        after_NC = model(torch.from_numpy(to_model_input(picture()[None], pixels)))
    assert torch.equal(before_NC, after_NC)
    assert not any(one.requires_grad for one in model.parameters())


class Corner(torch.nn.Module):
    """Sees contrast in the upper left quarter, which speaks for class 1, and nothing elsewhere."""

    def __init__(self, gain: float) -> None:
        super().__init__()
        self.gain = torch.nn.Parameter(torch.tensor(gain))

    def forward(self, x_NCHW: torch.Tensor) -> torch.Tensor:
        seen_N = x_NCHW[:, 0, :32, :32].square().mean((1, 2))
        return torch.nn.functional.one_hot(torch.tensor(1), 10) * (self.gain * seen_N)[:, None]


def test_heat_lies_where_the_model_looks_and_nowhere_else() -> None:
    heat_HW = heat(Corner(5.0), picture(), 1, PixelConfig(side=64), HeatConfig())
    assert heat_HW[:32, :32].sum() / heat_HW.sum() > 0.9
    assert heat_HW.max() == pytest.approx(1)


def test_what_says_little_is_shown_faintly() -> None:
    pixels = PixelConfig(side=64)
    loud_HW, quiet_HW = (heat(Corner(gain), picture(), 1, pixels, HeatConfig()) for gain in (5.0, 0.05))
    assert quiet_HW.max() < 0.1
    assert np.argmax(quiet_HW) == np.argmax(loud_HW)


@pytest.mark.parametrize("grey", [0, 90, 255])
@pytest.mark.parametrize("name", ["levit_128s", "vit_tiny_r_s16_p8_224"])
def test_an_image_without_detail_has_no_heat(name: str, grey: int) -> None:
    kwargs = {"distilled": False} if name == "levit_128s" else {}
    flat_HW = np.full((64, 64), grey, np.uint8)
    heat_HW = heat(model_of(name, **kwargs), flat_HW, 2, PixelConfig(side=64), QUICK)
    assert heat_HW.max() < 1e-3
    shown_HWC = np.asarray(Image.open(io.BytesIO(overlay(flat_HW, heat_HW))))
    assert (shown_HWC == grey).all()


@pytest.fixture
def classifier(tmp_path: Path) -> Classifier:
    kwargs = {"in_chans": 1, "num_classes": 3, "img_size": 64, "distilled": False}
    card = {
        "format": 1,
        "model": "xray-vit",
        "classes": ["a", "b", "c"],
        "architecture": {"timm": "levit_128s", "kwargs": kwargs},
        "pixels": {"side": 64},
        "preprocess_version": PREPROCESS_VERSION,
        "calibration": {"temperature": 1, "conformal_threshold": 0.4, "coverage": 0.9, "abstain_below": 0.3},
        "dataset_version": "d",
        "synthetic": True,
    }
    (tmp_path / "card.json").write_text(json.dumps(card))
    save_file(timm.create_model("levit_128s", **kwargs).state_dict(), tmp_path / "model.safetensors")
    return Classifier(tmp_path)


def test_a_second_heatmap_is_told_at_once_that_the_replica_is_busy(classifier: Classifier) -> None:
    turn = SingleSlotExecutor()

    async def ask(times: int) -> list[np.ndarray | None]:
        return list(
            await asyncio.gather(*(turn.try_run(classifier.heat, picture(), 1) for _ in range(times)))
        )

    first, second, third = asyncio.run(ask(3))
    assert first is not None
    assert first.shape == (64, 64)
    assert second is third is None
    (again,) = asyncio.run(ask(1))
    assert np.array_equal(again, first)


def test_predictions_are_answered_as_ever_while_a_heatmap_is_made(classifier: Classifier) -> None:
    turn, pictures = SingleSlotExecutor(), np.stack([picture(seed=one) for one in range(4)])
    alone_NC = classifier.probabilities(pictures)
    answered = threading.Event()

    def long_look(pixels_HW: np.ndarray) -> np.ndarray:
        assert os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) >= 10
        heat_HW = classifier.heat(pixels_HW, 1)
        assert answered.wait(60), "the predictions waited for the heatmap"
        return heat_HW

    async def ask() -> None:
        heating = asyncio.create_task(turn.try_run(long_look, picture()))
        for _ in range(3):
            answers_NC = await asyncio.to_thread(classifier.probabilities, pictures)
            assert np.array_equal(answers_NC, alone_NC)
        answered.set()
        assert await heating is not None

    asyncio.run(ask())
