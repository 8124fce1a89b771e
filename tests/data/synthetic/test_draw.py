"""Noise, drift, bias and shortcut change the drawn X-ray as they say."""

import numpy as np

from data.imaging.preprocess import PixelConfig, decode, to_pixels
from data.synthetic.generator import (
    Subject,
    SyntheticConfig,
    draw,
    subjects,
)
from tests.data.synthetic.drawn import SMALL, one_of

PIXELS = PixelConfig(side=64)


def pixels(config: SyntheticConfig, subject: Subject, seed: int = 0) -> np.ndarray:
    """What the model sees of one image; the same seed gives the same pose, sign and noise."""
    blob, _, _ = draw(config, subject, 1, np.random.default_rng(seed))
    return to_pixels(blob, PIXELS).astype(float)


def test_more_noise_makes_neighbouring_pixels_differ_more() -> None:
    subject = one_of(SMALL, "normal")
    quiet, loud = (
        np.abs(np.diff(pixels(SyntheticConfig(side=64, noise=noise), subject))).mean() for noise in (0.0, 5.0)
    )
    assert loud > 1.5 * quiet


def test_drift_changes_the_picture_although_brightness_is_normalised() -> None:
    subject = one_of(SMALL, "normal")
    means = [pixels(SyntheticConfig(side=64, drift=drift), subject).mean() for drift in (0.0, 0.5, 1.0)]
    assert means[0] - means[1] > 5
    assert means[1] - means[2] > 5


def test_bias_weakens_a_sign_in_women_and_not_in_men() -> None:
    def change(sex: str) -> float:
        subject = one_of(SyntheticConfig(images=200, side=64), "tuberculosis", sex)
        plain, biased = (
            pixels(SyntheticConfig(side=64, bias=bias, noise=0.0), subject) for bias in (0.0, 0.9)
        )
        return float(np.abs(plain - biased).mean())

    assert change("M") == 0
    assert change("F") > 1


def test_the_shortcut_puts_the_side_marker_where_the_class_says() -> None:
    def marker_row(subject: Subject, shortcut: float) -> np.ndarray:
        config = SyntheticConfig(side=160, shortcut=shortcut)
        blob, _, _ = draw(config, subject, 1, np.random.default_rng(subject.seed))
        return decode(blob).shown_HW[4].astype(int)

    def place(subject: Subject) -> int:
        """The tenth of the width where the marker appears; -1 when chance had put it there already."""
        difference = marker_row(subject, 1.0) - marker_row(subject, 0.0)
        return int(np.argmax(difference) // 16) if difference.max() > 20 else -1

    people = list(subjects(SyntheticConfig(images=60)))
    for index, label in ((8, "bone_fracture"), (9, "bone_normal")):
        places = {place(one) for one in people if one.patient.label == label}
        assert places <= {index, -1}
        assert index in places
