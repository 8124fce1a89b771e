"""Heat over the X-ray: as large as it, in place, and nothing where there is no heat."""

import io

import numpy as np
import pytest
from PIL import Image

from data.imaging.preprocess import PixelConfig, place, scale
from serve.front_door.heatmap_overlay import overlay


def film(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width)).astype(np.uint8)


def opened(png: bytes) -> np.ndarray:
    image = Image.open(io.BytesIO(png))
    assert image.mode == "RGB"
    assert not image.info
    return np.asarray(image)


@pytest.mark.parametrize("size", [(200, 200), (300, 120), (90, 310), (64, 64), (1, 700)])
def test_the_overlay_is_as_large_as_the_shown_image_and_the_same_again(size: tuple[int, int]) -> None:
    heat_SS = np.random.default_rng(1).random((96, 96), np.float32)
    png = overlay(film(*size), heat_SS)
    assert opened(png).shape == (*size, 3)
    assert png == overlay(film(*size), heat_SS)


def test_without_heat_the_image_is_as_it_was() -> None:
    shown_HW = film(150, 100)
    assert np.array_equal(
        opened(overlay(shown_HW, np.zeros((96, 96), np.float32))), shown_HW[..., None].repeat(3, 2)
    )


@pytest.mark.parametrize("size", [(400, 200), (200, 400), (300, 300)])
def test_heat_lands_on_the_place_that_the_model_saw(size: tuple[int, int]) -> None:
    height, width = size
    shown_HW = np.zeros(size, np.uint8)
    shown_HW[height // 4 : height // 2, width // 2 : 3 * width // 4] = 200
    seen_SS = scale(shown_HW, PixelConfig(side=96)).astype(np.float32) / 255
    warm_HWC = opened(overlay(shown_HW, seen_SS)).astype(int)
    tinted_HW = warm_HWC[..., 0] - warm_HWC[..., 2] > 60
    truth_HW = shown_HW > 0
    assert (tinted_HW & truth_HW).sum() / (tinted_HW | truth_HW).sum() > 0.9


def test_the_place_in_the_models_square_is_that_of_the_pixels() -> None:
    pixels_SS = scale(np.full((300, 100), 80, np.uint8) + film(300, 100) // 4, PixelConfig(side=96))
    top, left, height, width = place((300, 100), 96)
    assert (top, left, height, width) == (0, 32, 96, 32)
    assert not pixels_SS[:, :left].any()
    assert pixels_SS[:, left : left + width].any(axis=0).all()
