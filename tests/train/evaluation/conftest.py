"""Drawn chests, shared by the tests of evaluation."""

import numpy as np
import pytest

from data.imaging.preprocess import decode
from data.synthetic.generator import SyntheticConfig, draw, subjects
from data.taxonomy import taxonomy


@pytest.fixture(scope="module")
def chests() -> list[np.ndarray]:
    config = SyntheticConfig(seed=5, images=40)
    return [
        decode(draw(config, one, 1, np.random.default_rng(one.seed))[0]).shown_HW
        for one in subjects(config)
        if taxonomy()[one.patient.label].region == "chest"
    ]
