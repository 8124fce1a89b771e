"""The model card of a release bundle, as serving reads it: what the weights are and how to use them."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.preprocess import PREPROCESS_VERSION, PixelConfig

FORMAT = 1


class CardError(ValueError):
    """The card is of another format, or was trained with pixels that this code does not make."""


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """What turns logits into an honest answer; fitted on validation data only."""

    temperature: float
    """Logits are divided by it before the softmax (Guo et al. 2017)."""
    conformal_threshold: float
    """A class belongs to the prediction set from this probability on (split conformal, Sadinle et al. 2019)."""
    coverage: float
    """Share of images whose prediction set holds the truth, as aimed at, e.g. 0.9."""
    abstain_below: float
    """The software abstains when its best calibrated probability is below this."""


@dataclass(frozen=True, kw_only=True)
class OutlierRule:
    """When an image is too unlike the training images for an answer; the arrays are a file of the bundle."""

    threshold: float
    """Of `serve.outliers`: the software abstains on images that are stranger."""
    false_alarms: float
    """Share of images like the validation images on which it abstains for that all the same, at most."""


@dataclass(frozen=True, kw_only=True)
class Card:
    model: str
    classes: tuple[str, ...]
    timm_name: str
    timm_kwargs: dict[str, Any]
    pixels: PixelConfig
    calibration: Calibration
    dataset_version: str
    synthetic: bool
    """True when the model saw nothing but drawn images."""
    outliers: OutlierRule | None = None
    """None: nobody tells; so it is in cards of before."""

    @classmethod
    def from_json(cls, text: str | bytes) -> "Card":
        """Parse `card.json`.

        Raises:
            CardError: another format, another transform, or a field is missing.
        """
        raw = json.loads(text)
        if raw.get("format") != FORMAT:
            raise CardError(f"this code reads cards of format {FORMAT}, the bundle has {raw.get('format')!r}")
        if raw.get("preprocess_version") != PREPROCESS_VERSION:
            raise CardError(
                f"the model was trained with pixel transform {raw.get('preprocess_version')!r}, "
                f"this code package makes {PREPROCESS_VERSION!r}"
            )
        try:
            return cls(
                model=raw["model"],
                classes=tuple(raw["classes"]),
                timm_name=raw["architecture"]["timm"],
                timm_kwargs=raw["architecture"]["kwargs"],
                pixels=PixelConfig(**raw["pixels"]),
                calibration=Calibration(**raw["calibration"]),
                dataset_version=raw["dataset_version"],
                synthetic=raw["synthetic"],
                outliers=_rule(raw.get("outliers")),
            )
        except (KeyError, TypeError) as error:
            raise CardError(f"the card lacks or mistypes a field: {error}") from error

    @classmethod
    def read(cls, path: Path) -> "Card":
        return cls.from_json(path.read_text())


def _rule(raw: dict[str, Any] | None) -> OutlierRule | None:
    return None if raw is None else OutlierRule(threshold=raw["threshold"], false_alarms=raw["false_alarms"])
