"""What is gained by not answering: accuracy and false-normal rate against the share of images that are answered.

A false normal is an image with a finding that is answered as one without: the mistake that sends a patient home.
Pure arithmetic over the taxonomy's classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from data.taxonomy import taxonomy
from train.bootstrap import Estimate, Resampling

SHARES = (1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.6, 0.5)


@dataclass(frozen=True, kw_only=True)
class Point:
    """The most confident share of the images answered, the others not."""

    answered: float
    threshold: float
    """Calibrated probability from which an image is answered."""
    accuracy: Estimate
    false_normal_rate: Estimate | None
    """None where no image with a finding is answered."""

    def flat(self) -> dict[str, Any]:
        """One row of a table."""
        row: dict[str, Any] = {"answered": self.answered, "threshold": self.threshold}
        row |= self.accuracy.flat("accuracy")
        if self.false_normal_rate is not None:
            row |= self.false_normal_rate.flat("false_normal_rate")
        return row


def findings(names: Sequence[str]) -> np.ndarray:
    """finding_K, bool: which classes say that something is wrong."""
    return np.array([taxonomy()[name].finding for name in names])


def false_normal(
    labels_N: np.ndarray, answers_N: np.ndarray, names: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Whether an image with a finding was answered as one without, and which images have one: both (N,), bool."""
    finding_K = findings(names)
    found_N = finding_K[labels_N]
    return found_N & ~finding_K[answers_N], found_N


def curve(
    probabilities_NK: np.ndarray, labels_N: np.ndarray, names: Sequence[str], resampling: Resampling
) -> list[Point]:
    """From everything answered to half of it."""
    confidence_N, answers_N = probabilities_NK.max(axis=1), probabilities_NK.argmax(axis=1)
    missed_N, found_N = false_normal(labels_N, answers_N, names)
    falling_N = np.sort(confidence_N)[::-1]
    points = []
    for wanted in SHARES:
        threshold = float(falling_N[max(1, round(wanted * len(falling_N))) - 1])
        answered_N = confidence_N >= threshold
        accuracy = resampling.share(answers_N == labels_N, answered_N)
        assert accuracy is not None  # the most confident image is always answered
        points.append(
            Point(
                answered=float(answered_N.mean()),
                threshold=threshold,
                accuracy=accuracy,
                false_normal_rate=resampling.share(missed_N, answered_N & found_N),
            )
        )
    return points
