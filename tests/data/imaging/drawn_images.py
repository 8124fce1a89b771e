"""Drawn X-rays and photographs that the tests of image checks look at."""

from collections.abc import Iterator

import numpy as np

from data.imaging.preprocess import decode
from data.synthetic.generator import SyntheticConfig, draw, subjects


def xrays(count: int, side: int = 256) -> Iterator[tuple[str, np.ndarray]]:
    """Label and shown image of synthetic X-rays."""
    config = SyntheticConfig(seed=3, images=count, side=side)
    for subject in subjects(config):
        blob, _, _ = draw(config, subject, 1, np.random.default_rng(subject.seed))
        yield subject.patient.label, decode(blob).shown_HW
