"""What a training run does: every number that changes its result, as frozen dataclasses checked at construction.

Recipes (`jobs/recipes.py`) and the command line fill them; the resolved configuration is logged to MLflow and
stored in the model's card. Nothing here knows where the run happens, except how much machine it asks for.
"""

import difflib
import hashlib
import json
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, cast

MACHINE_FIELDS = frozenset(
    {
        "checkpoint_every_steps",
        "num_workers",
        "min_workers",
        "resize_check_s",
        "cpus_per_worker",
        "use_gpu",
        "microbatch_size",
        "fsdp_unit",
        "cpu_offload",
        "activation_checkpointing",
        "compile",
        "memory_share",
        "max_failures",
        "keep_checkpoints",
        "keep_every_epochs",
    }
)
"""Fields that say how much machine is used and not what is learned; a run may go on with others."""

STARTS = ("scratch", "champion", "timm")
CHOICES: dict[str, tuple[object, ...]] = {
    "precision": ("float32", "bfloat16"),
    "strategy": ("ddp", "fsdp", "deepspeed"),
    "fsdp_unit": ("block", "model"),
    "zero_stage": (1, 2, 3),
}

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
    start: Literal["scratch", "champion", "timm"] = "scratch"
    """The first weights: random ones from the seed, those of the registry's champion, or timm's pretrained ones."""

    def __post_init__(self) -> None:
        _check(
            not self.kwargs.keys() & GIVEN,
            f"model.kwargs may not have {', '.join(sorted(GIVEN))}: they follow from the dataset",
        )
        for name in ("drop_rate", "drop_path_rate"):
            value = getattr(self, name)
            _check(0 <= value < 1, f"model.{name} must lie in [0, 1), got {value}")
        _check(self.start in STARTS, f"model.start is one of {', '.join(STARTS)}, got {self.start!r}")


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
    layer_decay: float = 1.0
    """Factor on the rate from a block to the one below it, the head having the whole rate; 1 is none."""

    def __post_init__(self) -> None:
        _check(self.learning_rate > 0, f"optim.learning_rate must be positive, got {self.learning_rate}")
        _check(self.weight_decay >= 0, f"optim.weight_decay must not be negative, got {self.weight_decay}")
        for name in ("beta1", "beta2", "warmup_share"):
            value = getattr(self, name)
            _check(0 <= value < 1, f"optim.{name} must lie in [0, 1), got {value}")
        _check(0 <= self.final_share <= 1, f"optim.final_share must lie in [0, 1], got {self.final_share}")
        _check(self.clip_norm >= 0, f"optim.clip_norm must not be negative, got {self.clip_norm}")
        _check(0 < self.layer_decay <= 1, f"optim.layer_decay must lie in (0, 1], got {self.layer_decay}")


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
    mixup: float = 0.0
    """Alpha of the beta distribution that blends each image with another one (arXiv:1710.09412); 0 is none."""

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
    """Images in a global batch, over all workers: `microbatch_size` x `accumulation` x `num_workers`."""
    microbatch_size: int = 0
    """Images that a worker takes through the model at once; 0: its whole part of the global batch."""
    seed: int = 0
    """Of the first weights, the order, the augmentation and dropout."""
    label_smoothing: float = 0.0
    class_balance: float = 0.0
    """0: every image weighs the same; 1: every class does; between: the weight is (1 / share) to this power."""
    ema_decay: float = 0.0
    """Of the moving average of the weights, which is what is evaluated and published when it is on; 0 is off."""
    strategy: Literal["ddp", "fsdp", "deepspeed"] = "fsdp"
    """Who holds what: `ddp` everything on every worker, `fsdp` and `deepspeed` share it out."""
    zero_stage: Literal[1, 2, 3] = 2
    """What `deepspeed` shares out: 1 the optimizer's state, 2 gradients too, 3 parameters too."""
    fsdp_unit: Literal["block", "model"] = "block"
    """What `fsdp` gathers at once: a `block` takes the least memory, the whole `model` the fewest collectives."""
    cpu_offload: bool = False
    """Keep what `fsdp` and `deepspeed` share out in the memory of the host."""
    activation_checkpointing: bool = False
    """Keep only each block's input for the backward pass and compute the rest again."""
    compile: bool = False
    """Compile each block with `torch.compile`."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of parameters in forward and backward; gradients are always reduced and applied in float32."""
    memory_share: float = 0.25
    """A worker keeps its pixels in memory up to this share of the machine's, and beyond it in a local file."""
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
        for name in ("label_smoothing", "ema_decay"):
            value = getattr(self, name)
            _check(0 <= value < 1, f"{name} must lie in [0, 1), got {value}")
        _check(0 <= self.class_balance <= 1, f"class_balance must lie in [0, 1], got {self.class_balance}")
        _check(0 < self.memory_share <= 1, f"memory_share must lie in (0, 1], got {self.memory_share}")
        for name, choices in CHOICES.items():
            value = getattr(self, name)
            _check(value in choices, f"{name} is one of {', '.join(map(str, choices))}, got {value!r}")
        for name in ("checkpoint_every_steps", "keep_every_epochs"):
            _check(getattr(self, name) >= 0, f"{name} must not be negative, got {getattr(self, name)}")
        _check(
            0 <= self.min_workers <= self.num_workers,
            f"min_workers must lie between 0 and num_workers {self.num_workers}, got {self.min_workers}",
        )
        _check(self.resize_check_s > 0, f"resize_check_s must be positive, got {self.resize_check_s}")
        _check(self.max_failures >= -1, f"max_failures must be at least -1, got {self.max_failures}")
        self._check_batch()
        self._check_strategy()

    def _check_batch(self) -> None:
        workers, micro = self.num_workers, self.microbatch_size
        _check(
            workers <= self.batch_size,
            f"num_workers {workers} is more than the batch_size {self.batch_size}: every worker needs an image",
        )
        _check(micro >= 0, f"microbatch_size must not be negative, got {micro}")
        _check(
            not micro or self.batch_size % (micro * workers) == 0,
            f"batch_size {self.batch_size} is no multiple of microbatch_size {micro} x num_workers {workers} = "
            f"{micro * workers}",
        )

    def _check_strategy(self) -> None:
        _check(
            self.strategy != "deepspeed" or self.min_workers in (0, self.num_workers),
            f"min_workers {self.min_workers} does not go with strategy deepspeed, which goes on with as many workers "
            "as it began with: take ddp or fsdp",
        )
        _check(
            not self.cpu_offload or self.strategy != "ddp",
            "cpu_offload does not go with strategy ddp, which shares nothing out: take fsdp or deepspeed",
        )
        _check(
            not self.cpu_offload or self.use_gpu,
            "cpu_offload needs use_gpu: on a CPU everything is in the memory of the host already",
        )
        _check(
            not (self.compile and self.strategy == "deepspeed" and self.zero_stage == 3),
            "compile does not go with zero_stage 3, which fetches parameters within a block: take stage 1 or 2, "
            "or fsdp",
        )

    def accumulation(self, workers: int | None = None) -> int:
        """Microbatches that a worker takes for one update; with fewer workers there are more."""
        part = -(-self.batch_size // (workers or self.num_workers))
        return -(-part // self.microbatch_size) if self.microbatch_size else 1

    def as_dict(self) -> dict[str, Any]:
        """Nested plain values, as JSON takes them."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "TrainConfig":
        """The inverse of `as_dict`.

        Raises:
            TrainConfigError: there is a key that is no setting; the message names it.
        """
        parts = {"model": ModelConfig, "optim": OptimConfig, "augment": AugmentConfig}
        given = {name: _made(parts[name], one, f"{name}.") for name, one in values.items() if name in parts}
        return cast(TrainConfig, _made(cls, {**values, **given}))

    @property
    def fingerprint(self) -> str:
        """Hash of everything that changes what is learned; the amount of machine is left out."""
        learned = {name: value for name, value in self.as_dict().items() if name not in MACHINE_FIELDS}
        return hashlib.sha256(json.dumps(learned, sort_keys=True).encode()).hexdigest()[:16]


def _made(kind: type[Any], values: dict[str, Any], prefix: str = "") -> Any:
    unknown = sorted(values.keys() - {one.name for one in fields(kind)})
    near = difflib.get_close_matches(unknown[0], [one.name for one in fields(kind)], 1) if unknown else []
    hint = f": did you mean {prefix}{near[0]}?" if near else ""
    _check(not unknown, f"there is no setting {', '.join(prefix + one for one in unknown)}{hint}")
    return kind(**values)
