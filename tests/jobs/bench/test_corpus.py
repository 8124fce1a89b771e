"""The images of the ETL benchmarks."""

import pytest

from data.imaging.preprocess import PixelConfig, decode, to_pixels
from jobs.bench import corpus


@pytest.mark.parametrize("draw", [corpus.jpeg, corpus.dicom, corpus.small_jpeg])
def test_the_corpus_is_of_usable_images_that_all_differ(draw: corpus.Draw) -> None:
    one, other = draw(1), draw(2)
    assert draw(1) == one
    assert decode(one).width == (128 if draw is corpus.small_jpeg else 1024)
    pixels = PixelConfig(side=96)
    assert to_pixels(one, pixels).tobytes() != to_pixels(other, pixels).tobytes()
