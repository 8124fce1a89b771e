"""Where the sign of a finding lies in a drawn X-ray."""

import numpy as np
import pytest

from data.imaging.preprocess import decode
from data.synthetic.generator import (
    SyntheticConfig,
    draw,
    sign_of,
)
from tests.data.synthetic.drawn import one_of


@pytest.mark.parametrize("label", ["lung_opacity", "tuberculosis", "bone_fracture"])
def test_where_the_sign_lies_is_known_and_is_a_small_part_of_the_image(label: str) -> None:
    config = SyntheticConfig(images=40, side=128, noise=0)
    subject = one_of(config, label)
    (seed,) = subject.seed.spawn(1)
    sign_HW = sign_of(config, subject, seed)
    blob, _, _ = draw(config, subject, 1, np.random.default_rng(seed))
    assert sign_HW.shape == decode(blob).shown_HW.shape
    there_HW = sign_HW > 0.25 * sign_HW.max()
    assert 0.001 < there_HW.mean() < 0.25


def test_a_normal_film_has_no_sign() -> None:
    config = SyntheticConfig(images=40, side=128)
    subject = one_of(config, "normal")
    assert not sign_of(config, subject, subject.seed.spawn(1)[0]).any()
