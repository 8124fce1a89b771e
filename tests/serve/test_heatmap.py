"""Where a model looked: every architecture of the recipes, and what no map may pretend."""

import io
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from data.preprocess import PixelConfig, to_model_input
from jobs.recipes import RECIPES
from serve.heatmap import HeatConfig, heat, step_back
from serve.overlay import overlay
from train.model import timm_kwargs

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
        return torch.stack([torch.zeros_like(seen_N), self.gain * seen_N], 1)


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


def test_predictions_beside_a_heatmap_are_what_they_were_alone() -> None:
    model, pixels = model_of("levit_128s", distilled=False), PixelConfig(side=64)
    x_NCHW = torch.from_numpy(to_model_input(np.stack([picture(seed=one) for one in range(4)]), pixels))

    @torch.inference_mode()
    def predict() -> torch.Tensor:
        return model(x_NCHW)

    alone_NC, alone_HW = predict(), heat(model, picture(), 1, pixels, QUICK)
    with ThreadPoolExecutor(1, initializer=step_back) as behind, ThreadPoolExecutor(2) as pool:
        heats = [behind.submit(heat, model, picture(), 1, pixels, QUICK) for _ in range(3)]
        answers = [pool.submit(predict) for _ in range(20)]
        assert all(torch.equal(one.result(), alone_NC) for one in answers)
        assert all(np.array_equal(one.result(), alone_HW) for one in heats)
