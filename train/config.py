"""Settings of a training run, as frozen dataclasses that are checked at construction.

`WorkersConfig` has what both models share, `TrainConfig` is a run of the ViT, `train.llm.config.LlmConfig` one of
the language model. Recipes (`jobs/recipes.py`) and the command line fill them; the resolved configuration is logged
to MLflow and stored in the model's card. Knows neither Ray nor torch.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, Literal, Self

from train.config_checks import build, require, require_choices

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
"""Settings that say how much machine a run uses and not what it learns; a resumed run may change them."""

Precision = Literal["float32", "bfloat16"]
GIVEN = frozenset({"in_chans", "num_classes", "img_size", "pretrained"})
"""Keyword arguments of `timm.create_model` that follow from the dataset."""


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
    """Initial weights: random from the seed, those of the registry's champion, or timm's pretrained ones."""

    def __post_init__(self) -> None:
        require(
            not self.kwargs.keys() & GIVEN,
            f"model.kwargs may not have {', '.join(sorted(GIVEN))}: they follow from the dataset",
        )
        for name in ("drop_rate", "drop_path_rate"):
            value = getattr(self, name)
            require(0 <= value < 1, f"model.{name} must lie in [0, 1), got {value}")
        require_choices(self, "model.")


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
        require(self.learning_rate > 0, f"optim.learning_rate must be positive, got {self.learning_rate}")
        require(self.weight_decay >= 0, f"optim.weight_decay must not be negative, got {self.weight_decay}")
        for name in ("beta1", "beta2", "warmup_share"):
            value = getattr(self, name)
            require(0 <= value < 1, f"optim.{name} must lie in [0, 1), got {value}")
        require(0 <= self.final_share <= 1, f"optim.final_share must lie in [0, 1], got {self.final_share}")
        require(self.clip_norm >= 0, f"optim.clip_norm must not be negative, got {self.clip_norm}")
        require(0 < self.layer_decay <= 1, f"optim.layer_decay must lie in (0, 1], got {self.layer_decay}")


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
            require(value >= 0, f"augment.{name} must not be negative, got {value}")
        require(self.zoom < 1 and self.contrast < 1, "augment.zoom and augment.contrast must be below 1")


@dataclass(frozen=True, kw_only=True)
class WorkersConfig:
    """Settings that training of either model shares: passes over the data, workers, checkpoints."""

    PARTS: ClassVar[Mapping[str, type[Any]]] = {}
    """Settings that are dataclasses themselves, by name."""

    epochs: int
    batch_size: int
    """Samples of a global batch, over all workers."""
    microbatch_size: int
    """Samples that a worker passes through the model at once."""
    precision: Precision = "float32"
    """Of forward and backward pass; weights, gradients and optimizer state stay float32."""
    seed: int = 0
    """Of initial weights, sample order, augmentation and dropout."""
    checkpoint_every_steps: int
    """Interval between checkpoints besides those at the end of each epoch; 0: only those. Changes no weights."""
    num_workers: int
    min_workers: int = 0
    """Fewest workers that the run continues with while the cluster has no room for `num_workers`; 0: no fewer."""
    resize_check_s: float = 60.0
    """Interval at which a run with fewer than `num_workers` looks for room for more, seconds."""
    cpus_per_worker: int = 1
    use_gpu: bool = False
    max_failures: int = 3
    """Number of worker deaths that the run survives; -1: any number."""
    keep_checkpoints: int = 2
    """Number of newest checkpoints that stay in the object store."""

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "num_workers", "cpus_per_worker", "keep_checkpoints"):
            value = getattr(self, name)
            require(value >= 1, f"{name} must be at least 1, got {value}")
        require_choices(self)
        require(
            self.checkpoint_every_steps >= 0,
            f"checkpoint_every_steps must not be negative, got {self.checkpoint_every_steps}",
        )
        require(
            0 <= self.min_workers <= self.num_workers,
            f"min_workers must lie between 0 and num_workers {self.num_workers}, got {self.min_workers}",
        )
        require(self.resize_check_s > 0, f"resize_check_s must be positive, got {self.resize_check_s}")
        require(self.max_failures >= -1, f"max_failures must be at least -1, got {self.max_failures}")
        require(
            self.num_workers <= self.batch_size,
            f"num_workers {self.num_workers} is more than the batch_size {self.batch_size}: every worker needs a "
            "sample",
        )

    def accumulation(self, workers: int | None = None) -> int:
        """Return the number of microbatches that each worker takes for one update.

        Args:
            workers: number of workers; by default `num_workers`.
        """
        share = -(-self.batch_size // (workers or self.num_workers))
        return -(-share // self.microbatch_size) if self.microbatch_size else 1

    def as_dict(self) -> dict[str, Any]:
        """Return nested plain values, as JSON takes them."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Invert `as_dict`.

        Raises:
            TrainConfigError: a key is no setting; the message names it.
        """
        parts = {
            name: build(kind, values[name], f"{name}.") for name, kind in cls.PARTS.items() if name in values
        }
        return build(cls, {**values, **parts})

    @property
    def fingerprint(self) -> str:
        """Hash of all settings that change what is learned, without `MACHINE_FIELDS`; 16 hexadecimal digits."""
        learned = {name: value for name, value in self.as_dict().items() if name not in MACHINE_FIELDS}
        return hashlib.sha256(json.dumps(learned, sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True, kw_only=True)
class TrainConfig(WorkersConfig):
    """One training run of the ViT."""

    PARTS: ClassVar[Mapping[str, type[Any]]] = {
        "model": ModelConfig,
        "optim": OptimConfig,
        "augment": AugmentConfig,
    }

    model: ModelConfig = field(default_factory=ModelConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    epochs: int = 10
    batch_size: int = 64
    """Images of a global batch, over all workers: `microbatch_size` x `accumulation` x `num_workers`."""
    microbatch_size: int = 0
    """Images that a worker passes through the model at once; 0: its whole share of the global batch."""
    label_smoothing: float = 0.0
    class_balance: float = 0.0
    """0: every image weighs the same; 1: every class does; between: the weight is (1 / share) to this power."""
    ema_decay: float = 0.0
    """Decay of the moving average of the weights, which is evaluated and published when it is on; 0: off."""
    strategy: Literal["ddp", "fsdp", "deepspeed"] = "fsdp"
    """How weights lie on the workers: `ddp` replicates them, `fsdp` and `deepspeed` shard them."""
    zero_stage: Literal[1, 2, 3] = 2
    """What `deepspeed` shards: 1 the optimizer's state, 2 gradients too, 3 parameters too."""
    fsdp_unit: Literal["block", "model"] = "block"
    """What `fsdp` gathers at once: a `block` takes the least memory, the whole `model` the fewest collectives."""
    cpu_offload: bool = False
    """Keep what `fsdp` and `deepspeed` shard in the memory of the host."""
    activation_checkpointing: bool = False
    """Keep only each block's input for the backward pass and compute the rest again."""
    compile: bool = False
    """Compile each block with `torch.compile`."""
    memory_share: float = 0.25
    """A worker keeps its pixels in memory up to this share of the machine's, and beyond it in a local file."""
    checkpoint_every_steps: int = 50
    num_workers: int = 2
    keep_every_epochs: int = 0
    """The checkpoint at the end of each such epoch stays as well; 0: none."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("label_smoothing", "ema_decay"):
            value = getattr(self, name)
            require(0 <= value < 1, f"{name} must lie in [0, 1), got {value}")
        require(0 <= self.class_balance <= 1, f"class_balance must lie in [0, 1], got {self.class_balance}")
        require(0 < self.memory_share <= 1, f"memory_share must lie in (0, 1], got {self.memory_share}")
        for name in ("microbatch_size", "keep_every_epochs"):
            require(getattr(self, name) >= 0, f"{name} must not be negative, got {getattr(self, name)}")
        once = self.microbatch_size * self.num_workers
        require(
            not once or self.batch_size % once == 0,
            f"batch_size {self.batch_size} is no multiple of microbatch_size {self.microbatch_size} x num_workers "
            f"{self.num_workers} = {once}",
        )
        self._check_strategy()

    def _check_strategy(self) -> None:
        require(
            self.strategy != "deepspeed" or self.min_workers in (0, self.num_workers),
            f"min_workers {self.min_workers} does not go with strategy deepspeed, which goes on with as many workers "
            "as it began with: take ddp or fsdp",
        )
        require(
            not self.cpu_offload or self.strategy != "ddp",
            "cpu_offload does not go with strategy ddp, which shares nothing out: take fsdp or deepspeed",
        )
        require(
            not self.cpu_offload or self.use_gpu,
            "cpu_offload needs use_gpu: on a CPU everything is in the memory of the host already",
        )
        require(
            not (self.compile and self.strategy == "deepspeed" and self.zero_stage == 3),
            "compile does not go with zero_stage 3, which fetches parameters within a block: take stage 1 or 2, "
            "or fsdp",
        )
