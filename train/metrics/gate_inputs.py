"""The inputs of the gates: figures of a model version on the test split, from the modules that measure them.

Kept apart from those modules so that `train.evaluation.gates` needs none of their libraries.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from train.metrics.bootstrap import Estimate


@dataclass(frozen=True, kw_only=True)
class ClassCount:
    """Inputs of one class's floor."""

    label: str
    recall: float | None
    images: int
    groups: int


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One model beside the champion on the same images (`train.metrics.champion_comparison`)."""

    champion: str | None
    """The champion's version; None without one, or when the model is the champion."""
    why_not: str = ""
    """Why they cannot be compared; empty if they were, or if there is no other champion."""
    difference: Estimate | None = None
    """Accuracy minus the champion's, with the two-sided 95 % interval; below zero is worse."""
    bound: float | None = None
    """Lower 95 % bound of the difference."""
    only_right: int = 0
    """Images that the model has right and the champion wrong."""
    only_wrong: int = 0
    """The other way round."""


@dataclass(frozen=True, kw_only=True)
class Gap:
    """The largest difference in false-normal rate between two subgroups that are large enough
    (`train.metrics.subgroups`).
    """

    attribute: str
    """sex, age, view or source."""
    estimate: Estimate | None
    """None: fewer than two subgroups are large enough."""
    most: str = ""
    """The subgroup in which most findings are missed."""
    least: str = ""
    images: int = 0
    """Images with a finding in the smaller of the two; without two, in the second largest subgroup."""


@dataclass(frozen=True, kw_only=True)
class Remaining:
    """Accuracy that remains without a part of the picture (`train.evaluation.shortcut_audit`)."""

    name: str
    images: int
    why_not: str = ""
    """Why it could not be measured; empty when it was."""
    full: float = 0.0
    """Balanced accuracy on these films as they are ..."""
    masked: float = 0.0
    """... and without that part."""
    chance: float = 0.0
    left: Estimate | None = None
    """(masked - chance) / (full - chance): 0 is nothing, 1 is all."""


@dataclass(frozen=True, kw_only=True)
class Behaviour:
    """The share of images on which the model, or the checks before it, behaved as required
    (`train.evaluation.behavioural_tests`).
    """

    name: str
    estimate: Estimate | None
    """None: the test could not be made ..."""
    why_not: str = ""
    """... and why."""
    family: Literal["behaviour", "refusal"] = "behaviour"
    """refusal: the checks before the model must refuse."""


@dataclass(frozen=True, kw_only=True)
class GateInputs:
    """All inputs of the gates."""

    accuracy: Estimate | None
    """None when the split is empty."""
    classes: Sequence[ClassCount]
    calibration_error: Estimate | None = None
    coverage: Estimate | None = None
    """Of the conformal sets; its interval counts validation patients too."""
    promised_coverage: float = 0.9
    champion: Comparison = field(default_factory=lambda: Comparison(champion=None))
    subgroups: Sequence[Gap] = ()
    shortcuts: Sequence[Remaining] = ()
    behaviour: Sequence[Behaviour] = ()
