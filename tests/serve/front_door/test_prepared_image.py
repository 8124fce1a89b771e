"""Pixels are made once, where the file is opened, and are the same as those that a version has made later."""

import asyncio
from typing import Any

import numpy as np

from data.imaging.preprocess import Decoded, PixelConfig, decode, scale
from data.sandbox.decoder import Decoder
from data.synthetic import generator
from serve.front_door import prepared_image
from serve.front_door.prepared_image import PreparedImage, decode_and_scale, pixels_for


class Inside(Decoder):
    """Decodes in this process."""

    def __init__(self) -> None:
        """Without children."""

    def decode(self, blob: bytes, **_: Any) -> Decoded:
        return decode(blob)


def drawn() -> bytes:
    config = generator.SyntheticConfig(images=10, side=128)
    subject = next(iter(generator.subjects(config)))
    blob, _, _ = generator.draw(config, subject, 1, np.random.default_rng(0))
    return blob


def test_the_version_is_asked_with_the_pixels_that_were_made_where_the_file_was_opened(
    monkeypatch: Any,
) -> None:
    config = PixelConfig(side=64)
    one = decode_and_scale(Inside(), drawn(), None, config)
    expected_HW = scale(one.shown_HW, config)
    monkeypatch.setattr(prepared_image, "scale", None)
    assert np.array_equal(asyncio.run(pixels_for(one, PixelConfig(side=64))), expected_HW)


def test_a_version_with_other_pixels_gets_its_own() -> None:
    one = decode_and_scale(Inside(), drawn(), None, PixelConfig(side=64))
    wanted = PixelConfig(side=96)
    assert np.array_equal(asyncio.run(pixels_for(one, wanted)), scale(one.shown_HW, wanted))


def test_without_a_champion_s_card_nothing_is_made_beforehand() -> None:
    one = decode_and_scale(Inside(), drawn(), None, None)
    assert isinstance(one, PreparedImage)
    assert one.pixels == {}
