"""Photographs and drawings in colour are refused; grey pictures stored in colour are not."""

import io

import numpy as np
import pytest
from PIL import Image, ImageDraw
from sklearn.datasets import load_sample_images

from data.imaging.preprocess import BadImageError, decode
from tests.data.imaging.drawn_images import xrays


def jpeg(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG")
    return file.getvalue()


@pytest.mark.parametrize("photograph", [0, 1])
def test_a_colour_photograph_is_refused(photograph: int) -> None:
    with pytest.raises(BadImageError) as caught:
        decode(jpeg(Image.fromarray(load_sample_images().images[photograph])))
    assert caught.value.reason == "colour"


def test_a_grey_image_stored_in_colour_is_kept_also_with_a_coloured_marker_and_a_blue_tint() -> None:
    grey = Image.fromarray(next(xrays(10))[1]).convert("RGB")
    marked = grey.copy()
    ImageDraw.Draw(marked).rectangle((5, 5, 60, 60), fill=(250, 220, 0))
    tinted = Image.fromarray((np.asarray(grey) * np.array([0.93, 0.96, 1.0])).astype(np.uint8))
    for image in (grey, marked, tinted, grey.convert("CMYK")):
        assert decode(jpeg(image)).width == 256


def test_a_colour_photograph_that_a_reviewer_has_released_decodes() -> None:
    photograph = jpeg(Image.fromarray(load_sample_images().images[1]))
    with pytest.raises(BadImageError, match="in colour"):
        decode(photograph, ("blank",))
    assert decode(photograph, ("colour",)).shown_HW.ndim == 2
