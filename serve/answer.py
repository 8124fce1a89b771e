"""Calibrated probabilities → what the caller is told: label, confidence, abstention, prediction set, triage.

Pure arithmetic over the card's calibration; knows neither Ray nor HTTP.
"""

from dataclasses import dataclass

import numpy as np

from data.taxonomy import taxonomy
from serve.card import Card
from serve.triage import triage


class InvalidOutputError(ValueError):
    """The model's output is no probability distribution over its classes."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    label: str
    probabilities: dict[str, float]
    confidence: float
    """Calibrated probability of the label, 0 to 1."""
    abstained: bool
    """True when no class is probable enough; the label is then the best guess, not a finding."""
    prediction_set: list[str]
    """Classes that together hold the truth with the card's coverage, most probable first; never empty."""
    triage: str


def answer(probabilities_C: np.ndarray, card: Card) -> Answer:
    """Read one row of the classifier's output.

    Args:
        probabilities_C: float, one calibrated probability a class, in the order of `card.classes`.
    Raises:
        InvalidOutputError: wrong length, not finite, negative, or not summing to one.
    """
    if probabilities_C.shape != (len(card.classes),) or not np.isfinite(probabilities_C).all():
        raise InvalidOutputError("the classifier answered no finite probability for each class")
    if (probabilities_C < 0).any() or abs(float(probabilities_C.sum()) - 1) > 1e-3:
        raise InvalidOutputError("the classifier's probabilities do not sum to one")
    by_class = {name: round(float(p), 6) for name, p in zip(card.classes, probabilities_C, strict=True)}
    ranked = sorted(by_class, key=lambda name: -by_class[name])
    label, confidence = ranked[0], by_class[ranked[0]]
    inside = [name for name in ranked if by_class[name] >= card.calibration.conformal_threshold]
    abstained = confidence < card.calibration.abstain_below
    return Answer(
        label=label,
        probabilities={name: by_class.get(name, 0.0) for name in taxonomy().names},
        confidence=confidence,
        abstained=abstained,
        prediction_set=inside or [label],
        triage=triage(by_class, abstained=abstained),
    )
