"""The card of a ViT as serving reads it: small, sound, and with what a test wants otherwise."""

import json
from typing import Any

from data.preprocess import PREPROCESS_VERSION
from data.taxonomy import taxonomy
from serve.card import Card

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


def card(*, calibration: dict[str, float] | None = None, **changes: Any) -> Card:
    """A card.

    Args:
        calibration: some of its numbers.
        changes: other fields.
    """
    numbers = {**RAW["calibration"], **(calibration or {})}
    return Card.from_json(json.dumps({**RAW, **changes, "calibration": numbers}))
