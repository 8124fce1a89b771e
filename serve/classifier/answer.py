"""From a classifier's output to the caller's answer: label, confidence, abstention and why, prediction set, triage.

Pure arithmetic over the card's calibration; knows neither Ray nor HTTP.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from data.model_card import ModelCard
from data.taxonomy import taxonomy
from serve.classifier.triage import Triage, triage

Reason = Literal["quality", "out_of_distribution", "below_threshold"]
"""Why the software abstains; where several hold, the one that is nearest to the image."""


class InvalidOutputError(ValueError):
    """The model's output is no probability distribution over its classes."""


@dataclass(frozen=True, kw_only=True)
class Classified:
    """The classifier's output for one image."""

    probabilities_C: np.ndarray
    """float, one calibrated probability a class, in the order of the card's classes."""
    strangeness: float = math.nan
    """How unlike the training images (`serve.classifier.ood_score`); not a number where the card has no rule for it."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The answer to one image, as a prediction record stores it."""

    label: str
    probabilities: dict[str, float]
    confidence: float
    """Calibrated probability of the label, 0 to 1."""
    abstained: bool
    """True when the answer is not to be trusted; the label is then the best guess, not a finding."""
    abstained_reason: Reason | None
    """None when not abstained."""
    concerns: tuple[str, ...]
    """Properties of the image that make any answer doubtful, see `data.imaging.quality_concerns`."""
    prediction_set: list[str]
    """Classes that together hold the truth with the card's coverage, most probable first; never empty."""
    triage: Triage


def answer(output: Classified, card: ModelCard, concerns: Sequence[str] = ()) -> Answer:
    """Turn the classifier's output into an answer by the calibration of its card.

    Args:
        concerns: doubts about the image, whatever the model.
    Raises:
        InvalidOutputError: wrong length, not finite, negative, or not summing to one.
    """
    probabilities_C = output.probabilities_C
    if probabilities_C.shape != (len(card.classes),) or not np.isfinite(probabilities_C).all():
        raise InvalidOutputError("the classifier answered no finite probability for each class")
    if (probabilities_C < 0).any() or abs(float(probabilities_C.sum()) - 1) > 1e-3:
        raise InvalidOutputError("the classifier's probabilities do not sum to one")
    by_class = {name: round(float(p), 6) for name, p in zip(card.classes, probabilities_C, strict=True)}
    ranked = sorted(by_class, key=lambda name: -by_class[name])
    label, confidence = ranked[0], by_class[ranked[0]]
    inside = [name for name in ranked if by_class[name] >= card.calibration.conformal_threshold]
    reason = _reason(output, confidence, card, concerns)
    return Answer(
        label=label,
        probabilities={name: by_class.get(name, 0.0) for name in taxonomy().names},
        confidence=confidence,
        abstained=reason is not None,
        abstained_reason=reason,
        concerns=tuple(concerns),
        prediction_set=inside or [label],
        triage=triage(by_class, abstained=reason is not None),
    )


def _reason(output: Classified, confidence: float, card: ModelCard, concerns: Sequence[str]) -> Reason | None:
    """Return why the software abstains; without a rule in the card no image is out of distribution."""
    if concerns:
        return "quality"
    if card.outliers is not None and output.strangeness > card.outliers.threshold:
        return "out_of_distribution"
    return "below_threshold" if confidence < card.calibration.abstain_below else None
