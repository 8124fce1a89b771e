"""The card of a classifier as serving reads it: small, sound, and with the changes that a test wants."""

import json
from typing import Any

from data.imaging.preprocess import PREPROCESS_VERSION
from data.model_card import ModelCard, OutlierRule
from data.taxonomy import taxonomy

RAW: dict[str, Any] = {
    "format": 1,
    "model": "xray-vit",
    "classes": list(taxonomy().names),
    "architecture": {"timm": "vit_tiny_patch16_224", "kwargs": {}},
    "pixels": {"side": 64},
    "preprocess_version": PREPROCESS_VERSION,
    "calibration": {"temperature": 1.0, "conformal_threshold": 0.4, "coverage": 0.9, "abstain_below": 0.3},
    "dataset_version": "d",
    "synthetic": True,
}

OUTLIERS = OutlierRule(
    method="relative_mahalanobis",
    file="outliers.safetensors",
    threshold=1.0,
    false_alarms=0.01,
    trained_on=100,
    validated_on=100,
)


def card(*, calibration: dict[str, float] | None = None, **changes: Any) -> ModelCard:
    """A card.

    Args:
        calibration: some of its numbers.
        changes: other fields.
    """
    numbers = {**RAW["calibration"], **(calibration or {})}
    return ModelCard.from_json(json.dumps({**RAW, **changes, "calibration": numbers}))
