"""The card of a release bundle, `card.json`: what the weights are, how to use them, and where they come from.

Training and export write it; serving, evaluation, the MLflow model and the edge runner read it, through
`ModelCard`. Needs the standard library and `data.imaging.preprocess` alone, because `train.release.edge_runner`
copies it into `predict.py`.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from data.imaging.preprocess import PREPROCESS_VERSION, PixelConfig

CARD_FILE, WEIGHTS_FILE, OUTLIERS_FILE = "card.json", "model.safetensors", "outliers.safetensors"
"""Names of files in a bundle."""
CARD_FORMAT = 1


class CardError(ValueError):
    """The card is of another format, lacks a field, or names another pixel transform; the message is one line."""


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """What `timm.create_model` takes to build the network again."""

    timm: str
    """timm's name of the model."""
    kwargs: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """What turns logits into an honest answer; fitted on validation data only."""

    temperature: float
    """Divisor of the logits before the softmax (Guo et al. 2017)."""
    conformal_threshold: float
    """A class belongs to the prediction set from this probability on (split conformal, Sadinle et al. 2019)."""
    coverage: float
    """Share of images whose prediction set holds the truth, as aimed at, e.g. 0.9."""
    abstain_below: float
    """The software abstains when its best calibrated probability is below this."""


@dataclass(frozen=True, kw_only=True)
class OutlierRule:
    """When an image is too unlike the training images for an answer; the arrays are a file of the bundle."""

    method: str
    file: str
    """Name of the file with the arrays."""
    threshold: float
    """The software abstains on images whose score (`serve.classifier.ood_score`) is higher."""
    false_alarms: float
    """Largest share of images like the validation images on which the rule abstains all the same."""
    trained_on: int
    """Number of training images that the arrays were fitted on."""
    validated_on: int
    """Number of validation images that the threshold was fitted on."""


@dataclass(frozen=True, kw_only=True)
class Runtime:
    """Which file of an exported bundle to run."""

    model: str
    """Name of the ONNX file."""
    form: str
    """Its form, as the rows of `variants` name it."""


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """One field a key of `card.json`; those without a default are what a classifier cannot be served without."""

    model: str
    """Name in the model registry."""
    classes: tuple[str, ...]
    """Names of the outputs, in the order of the logits."""
    architecture: Architecture
    pixels: PixelConfig
    preprocess_version: str
    """Version of the pixel transform that made the training images."""
    calibration: Calibration
    dataset_version: str
    synthetic: bool
    """True when the training images were all drawn by a program."""
    outliers: OutlierRule | None = None
    """None: no image is called an outlier. Cards written before the rule existed lack the key."""
    git_commit: str = ""
    """Commit of the code that trained the model."""
    run_id: str = ""
    """MLflow run that trained the model."""
    start: str | None = None
    """Where the first weights came from; None: random ones."""
    metrics: dict[str, float] = field(default_factory=dict)
    """Figures of the last epoch, on validation data."""
    config: dict[str, Any] = field(default_factory=dict)
    """The resolved `train.config.TrainConfig`."""
    parameters: int = 0
    """Number of weights."""
    files: dict[str, str] = field(default_factory=dict)
    """SHA-256 of each other file of the bundle, in hexadecimal, by name."""
    model_version: str | None = None
    """Exported bundles only, as the three below: the registry's version that was exported."""
    variant: str | None = None
    """`edge` or `cloud`."""
    runtime: Runtime | None = None
    variants: list[dict[str, Any]] | None = None
    """Size, speed and accuracy of each form of the model (`train.export.variants.Variant`)."""
    extra: dict[str, Any] = field(default_factory=dict)
    """Keys that this code does not know; they are written back as they were."""

    @classmethod
    def from_json(cls, text: str | bytes, *, any_transform: bool = False) -> "ModelCard":
        """Parse a `card.json` that any version of the project wrote.

        Args:
            any_transform: accept a model that was trained on other pixels than this code makes.
        Raises:
            CardError: another format, another transform, or a field is missing.
            ValueError: the text is no JSON.
        """
        raw = json.loads(text)
        if not isinstance(raw, dict) or raw.get("format") != CARD_FORMAT:
            given = raw.get("format") if isinstance(raw, dict) else None
            raise CardError(f"this code reads cards of format {CARD_FORMAT}, the bundle has {given!r}")
        if not any_transform and raw.get("preprocess_version") != PREPROCESS_VERSION:
            raise CardError(
                f"the model was trained with pixel transform {raw.get('preprocess_version')!r}, "
                f"this code package makes {PREPROCESS_VERSION!r}"
            )
        try:
            return cls._from_dict(raw)
        except (KeyError, TypeError, ValueError) as error:
            raise CardError(f"the card lacks or mistypes a field: {error}") from error

    @classmethod
    def _from_dict(cls, raw: Mapping[str, Any]) -> "ModelCard":
        names = {part.name for part in fields(cls)} - {"extra"}
        values = {name: value for name, value in raw.items() if name in names}
        values |= {
            "classes": tuple(raw["classes"]),
            "architecture": Architecture(**raw["architecture"]),
            "pixels": PixelConfig(**raw["pixels"]),
            "calibration": Calibration(**raw["calibration"]),
            "outliers": None if raw.get("outliers") is None else OutlierRule(**raw["outliers"]),
            "runtime": None if raw.get("runtime") is None else Runtime(**raw["runtime"]),
            "extra": {name: value for name, value in raw.items() if name not in names | {"format"}},
        }
        return cls(**values)

    @classmethod
    def read(cls, path: Path) -> "ModelCard":
        """Read a `card.json` whose pixels this code makes; raises CardError as `from_json` does."""
        return cls.from_json(path.read_bytes())

    def to_json(self) -> bytes:
        """Write the card as `card.json` has it; `from_json` is the inverse."""
        values = {name: value for name, value in asdict(self).items() if value is not None}
        extra = values.pop("extra")
        card = {"format": CARD_FORMAT, "outliers": None, **values, **extra}
        return json.dumps(card, sort_keys=True, indent=1).encode()
