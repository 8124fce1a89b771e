"""What a training run does: every number that changes its result, as frozen dataclasses checked at construction.

Recipes (`jobs/recipes.py`) and the command line fill them; the resolved configuration is logged to MLflow and
stored in the model's card. Nothing here knows where the run happens, except how much machine it asks for.
"""

import hashlib
import json
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

MACHINE_FIELDS = frozenset(
    {
        "checkpoint_every_steps",
        "num_workers",
        "min_workers",
        "resize_check_s",
        "cpus_per_worker",
        "use_gpu",
        "max_failures",
        "keep_checkpoints",
        "keep_every_epochs",
    }
)
"""Fields that say how much machine is used and not what is learned."""


GIVEN = frozenset({"in_chans", "num_classes", "img_size", "pretrained"})
"""Keyword arguments of timm that are not a choice."""


class TrainConfigError(ValueError):
    """A setting has an impossible value; the message names it."""


def _check(condition: bool, message: str) -> None:
    if not condition:
        raise TrainConfigError(message)


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Which timm Vision Transformer; its side comes from the dataset, its outputs from the taxonomy."""

    name: str = "vit_tiny_r_s16_p8_224"
    """timm's name; the default is a ViT-tiny behind a small ResNet stem, which learns from few images."""
    kwargs: dict[str, Any] = field(default_factory=dict)
    """Further keyword arguments of `timm.create_model` that change the architecture, as JSON takes them."""
    drop_rate: float = 0.0
    """Dropout before the head."""
    drop_path_rate: float = 0.0
    """Stochastic depth, the rate of the last block (arXiv:1603.09382)."""

    def __post_init__(self) -> None:
        _check(
            not self.kwargs.keys() & GIVEN,
            f"model.kwargs may not have {', '.join(sorted(GIVEN))}: they follow from the dataset",
        )
        for name in ("drop_rate", "drop_path_rate"):
            value = getattr(self, name)
            _check(0 <= value < 1, f"model.{name} must lie in [0, 1), got {value}")


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """AdamW with linear warmup and a cosine, by step."""

    learning_rate: float = 1e-3
    """Peak learning rate, at the configured global batch size."""
    weight_decay: float = 0.05
    """Decoupled weight decay; biases, norms, position and class tokens have none."""
    beta1: float = 0.9
    beta2: float = 0.98
    """Below the usual 0.999: runs of a few hundred steps need a shorter memory."""
    warmup_share: float = 0.1
    """Share of all steps over which the rate rises from zero."""
    final_share: float = 0.01
    """The rate of the last step, as a share of the peak."""
    clip_norm: float = 1.0
    """Largest global gradient norm; 0 is no clipping."""

    def __post_init__(self) -> None:
        _check(self.learning_rate > 0, f"optim.learning_rate must be positive, got {self.learning_rate}")
        _check(self.weight_decay >= 0, f"optim.weight_decay must not be negative, got {self.weight_decay}")
        for name in ("beta1", "beta2", "warmup_share"):
            value = getattr(self, name)
            _check(0 <= value < 1, f"optim.{name} must lie in [0, 1), got {value}")
        _check(0 <= self.final_share <= 1, f"optim.final_share must lie in [0, 1], got {self.final_share}")
        _check(self.clip_norm >= 0, f"optim.clip_norm must not be negative, got {self.clip_norm}")


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """Random changes of a training image that leave its diagnosis alone; each amount is a maximum."""

    rotation_degrees: float = 8.0
    shift: float = 0.06
    """As a share of the side."""
    zoom: float = 0.08
    """Scale between 1 - zoom and 1 + zoom."""
    brightness: float = 0.15
    """Added to the normalised pixels, in standard deviations."""
    contrast: float = 0.15
    """Multiplied: between 1 - contrast and 1 + contrast."""
    horizontal_flip: bool = False
    """Off: a mirrored chest has its heart on the right, which is a finding of its own."""

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            _check(value >= 0, f"augment.{name} must not be negative, got {value}")
        _check(self.zoom < 1 and self.contrast < 1, "augment.zoom and augment.contrast must be below 1")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """One training run of the ViT."""

    model: ModelConfig = field(default_factory=ModelConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    epochs: int = 10
    batch_size: int = 64
    """Images in a global batch, over all workers."""
    seed: int = 0
    """Of the first weights, the order, the augmentation and dropout."""
    label_smoothing: float = 0.0
    class_balance: float = 0.0
    """0: every image weighs the same; 1: every class does; between: the weight is (1 / share) to this power."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of parameters in forward and backward; gradients are always reduced and applied in float32."""
    checkpoint_every_steps: int = 50
    """Besides the end of each epoch; 0 is only there. Changes nothing of what is learned."""
    num_workers: int = 2
    min_workers: int = 0
    """With how many the run goes on while the cluster has no place for `num_workers`; 0: with no fewer."""
    resize_check_s: float = 60.0
    """How often a run with fewer workers than it could have looks for a place for more."""
    cpus_per_worker: int = 1
    use_gpu: bool = False
    max_failures: int = 3
    """How many deaths of workers the run survives; -1 is any number."""
    keep_checkpoints: int = 2
    """How many of the newest checkpoints stay in the object store."""
    keep_every_epochs: int = 0
    """The checkpoint at the end of each such epoch stays as well; 0 is none."""

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "num_workers", "cpus_per_worker", "keep_checkpoints"):
            value = getattr(self, name)
            _check(value >= 1, f"{name} must be at least 1, got {value}")
        _check(
            self.num_workers <= self.batch_size,
            f"num_workers {self.num_workers} is more than the batch_size {self.batch_size}: "
            "every worker needs an image",
        )
        _check(
            0 <= self.label_smoothing < 1, f"label_smoothing must lie in [0, 1), got {self.label_smoothing}"
        )
        _check(0 <= self.class_balance <= 1, f"class_balance must lie in [0, 1], got {self.class_balance}")
        _check(
            self.precision in ("float32", "bfloat16"),
            f"precision is float32 or bfloat16, got {self.precision}",
        )
        for name in ("checkpoint_every_steps", "keep_every_epochs"):
            _check(getattr(self, name) >= 0, f"{name} must not be negative, got {getattr(self, name)}")
        _check(
            0 <= self.min_workers <= self.num_workers,
            f"min_workers must lie between 0 and num_workers {self.num_workers}, got {self.min_workers}",
        )
        _check(self.resize_check_s > 0, f"resize_check_s must be positive, got {self.resize_check_s}")
        _check(self.max_failures >= -1, f"max_failures must be at least -1, got {self.max_failures}")

    def as_dict(self) -> dict[str, Any]:
        """Nested plain values, as JSON takes them."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "TrainConfig":
        """The inverse of `as_dict`."""
        parts = {"model": ModelConfig, "optim": OptimConfig, "augment": AugmentConfig}
        return cls(**{name: parts[name](**one) if name in parts else one for name, one in values.items()})

    @property
    def fingerprint(self) -> str:
        """Hash of everything that changes what is learned; the amount of machine is left out."""
        learned = {name: value for name, value in self.as_dict().items() if name not in MACHINE_FIELDS}
        return hashlib.sha256(json.dumps(learned, sort_keys=True).encode()).hexdigest()[:16]
