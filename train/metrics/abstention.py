"""What abstention gains: accuracy and false-normal rate against the share of images that are answered.

A false normal is an image with a finding that is answered as one without: the mistake that sends a patient home. Pure
arithmetic over the taxonomy's classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from data.taxonomy import taxonomy
from train.metrics.bootstrap import Estimate, Resampling, flat

SHARES = (1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.6, 0.5)


@dataclass(frozen=True, kw_only=True)
class Point:
    """The figures when only the most confident share of images is answered."""

    answered: float
    threshold: float
    """Calibrated probability from which an image is answered."""
    accuracy: Estimate
    false_normal_rate: Estimate | None
    """None if no image with a finding is answered."""

    def flat(self) -> dict[str, Any]:
        """Return one row of a table."""
        row: dict[str, Any] = {"answered": self.answered, "threshold": self.threshold}
        return row | flat(accuracy=self.accuracy, false_normal_rate=self.false_normal_rate)


def findings(names: Sequence[str]) -> np.ndarray:
    """Return finding_K, bool: the classes that are findings."""
    return np.array([taxonomy()[name].finding for name in names])


def false_normal(
    labels_N: np.ndarray, answers_N: np.ndarray, names: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Return which images with a finding were answered as normal, and which have a finding: both (N,), bool."""
    finding_K = findings(names)
    found_N = finding_K[labels_N]
    return found_N & ~finding_K[answers_N], found_N


def curve(
    probabilities_NK: np.ndarray, labels_N: np.ndarray, names: Sequence[str], resampling: Resampling
) -> list[Point]:
    """Compute the points from everything answered to half of it."""
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
