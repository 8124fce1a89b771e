"""The synthetic X-rays are neither trivial nor hopeless: what guessing and a linear probe reach on unseen patients."""

import numpy as np
import pytest
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from data.imaging.preprocess import PixelConfig, to_pixels
from data.synthetic.generator import SyntheticConfig, draw, subjects
from data.taxonomy import taxonomy

CONFIG = SyntheticConfig(side=128)
"""The demo's patients at half the demo's resolution: the probe sees 40 x 40 pixels of either."""


@pytest.fixture(scope="module")
def thumbnails() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pixels as rows, class indices, and whether the patient is held out."""
    rows, labels, held_out = [], [], []
    for number, subject in enumerate(subjects(CONFIG)):
        for image, seed in enumerate(subject.seed.spawn(subject.images), start=1):
            blob, _, _ = draw(CONFIG, subject, image, np.random.default_rng(seed))
            small = Image.fromarray(to_pixels(blob, PixelConfig(side=96))).resize(
                (40, 40), Image.Resampling.BOX
            )
            rows.append(np.asarray(small, np.float32).ravel())
            labels.append(taxonomy().names.index(subject.patient.label))
            held_out.append(number % 5 == 0)
    return np.stack(rows), np.array(labels), np.array(held_out)


def test_the_commonest_class_is_a_poor_guess(thumbnails: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    _, labels, held_out = thumbnails
    assert np.bincount(labels[held_out]).max() / held_out.sum() <= 0.2


def test_a_linear_probe_finds_some_classes_and_not_all(
    thumbnails: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    pixels, labels, held_out = thumbnails
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=500))
    with threadpool_limits(1):  # threads that wait for each other on a busy machine take minutes
        probe.fit(pixels[~held_out], labels[~held_out])
        assert 0.40 <= probe.score(pixels[held_out], labels[held_out]) <= 0.75
