"""What a fine-tuning of the language model does: every number that changes its result, checked at construction.

`jobs/finetune_llm.py` fills it from the command line; the resolved configuration is logged to MLflow and stored in
the model's card. Knows neither torch nor LitGPT.
"""

import hashlib
import json
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from train.config import OptimConfig

TARGETS = ("query", "key", "value", "projection", "mlp", "head")
Method = Literal["full", "lora", "qlora"]
Precision = Literal["float32", "bfloat16"]
METHODS: tuple[Method, ...] = ("full", "lora", "qlora")
PRECISIONS: tuple[Precision, ...] = ("float32", "bfloat16")
MACHINE_FIELDS = frozenset(
    {
        "microbatch_size",
        "num_workers",
        "min_workers",
        "resize_check_s",
        "cpus_per_worker",
        "use_gpu",
        "max_failures",
        "checkpoint_every_steps",
        "keep_checkpoints",
    }
)
"""Fields that say how much machine is used and not what is learned; a run may go on with others."""


class LlmConfigError(ValueError):
    """A setting has an impossible value; the message names it and says what to take."""


def _check(condition: bool, message: str) -> None:
    if not condition:
        raise LlmConfigError(message)


@dataclass(frozen=True, kw_only=True)
class LoraConfig:
    """Low-rank adapters beside frozen weights (arXiv:2106.09685)."""

    r: int = 8
    """Rank of each adapter."""
    alpha: int = 16
    """An adapter's output is multiplied by alpha / r."""
    dropout: float = 0.05
    """Of what goes into an adapter."""
    targets: tuple[str, ...] = ("query", "key", "value", "projection")
    """Which projections have one: of query, key, value, projection, mlp, head."""

    def __post_init__(self) -> None:
        _check(self.r >= 1, f"lora.r must be at least 1, got {self.r}")
        _check(self.alpha >= 1, f"lora.alpha must be at least 1, got {self.alpha}")
        _check(0 <= self.dropout < 1, f"lora.dropout must lie in [0, 1), got {self.dropout}")
        odd = sorted(set(self.targets) - set(TARGETS))
        _check(
            bool(self.targets) and not odd,
            f"lora.targets are some of {', '.join(TARGETS)}, got {', '.join(odd) or 'none'}",
        )


@dataclass(frozen=True, kw_only=True)
class LlmConfig:
    """One fine-tuning of the language model."""

    method: Method = "lora"
    """`full`: every weight; `lora`: adapters only; `qlora`: adapters beside weights in 4 bits (NF4, CUDA only)."""
    lora: LoraConfig = field(default_factory=LoraConfig)
    """For `lora` and `qlora`."""
    precision: Precision = "float32"
    """Of forward and backward; what is learned, and its optimizer, stay float32."""
    epochs: int = 2
    batch_size: int = 4
    """Rows of a global batch, over all workers; with `packing` a row holds several pairs."""
    microbatch_size: int = 1
    """Rows that a worker takes through the model at once; the rest of its part is accumulated."""
    max_seq_length: int = 512
    """Tokens of a row; a pair that is longer is refused."""
    packing: bool = True
    """Put several pairs into a row, where they do not see each other."""
    learning_rate: float = 1e-3
    """Peak; about 1e-3 for adapters and 5e-5 for `full`."""
    warmup_share: float = 0.1
    """Share of all steps over which the rate rises from zero."""
    weight_decay: float = 0.0
    clip_norm: float = 1.0
    """Largest global gradient norm; 0 is no clipping."""
    seed: int = 0
    """Of the first adapters, the order and dropout."""
    num_workers: int = 1
    min_workers: int = 0
    """With how many the run goes on while the cluster has no place for `num_workers`; 0: with no fewer."""
    resize_check_s: float = 60.0
    """How often a run with fewer workers than it could have looks for a place for more."""
    cpus_per_worker: int = 1
    use_gpu: bool = False
    max_failures: int = 3
    """How many deaths of workers the run survives; -1 is any number."""
    checkpoint_every_steps: int = 10
    """Besides the end of each epoch; 0 is only there."""
    keep_checkpoints: int = 2
    """How many of the newest checkpoints stay in the object store."""

    def __post_init__(self) -> None:
        for name, choices in (("method", METHODS), ("precision", PRECISIONS)):
            value = getattr(self, name)
            _check(value in choices, f"{name} is one of {', '.join(choices)}, got {value!r}")
        whole = (
            "epochs",
            "batch_size",
            "microbatch_size",
            "num_workers",
            "cpus_per_worker",
            "keep_checkpoints",
        )
        for name in whole:
            _check(getattr(self, name) >= 1, f"{name} must be at least 1, got {getattr(self, name)}")
        _check(self.max_seq_length >= 16, f"max_seq_length must be at least 16, got {self.max_seq_length}")
        _check(
            self.method != "qlora" or self.use_gpu,
            "method qlora needs a GPU, as NF4 is there on CUDA only: take method lora, or use_gpu true on a machine "
            "that has one",
        )
        _check(
            self.method != "qlora" or self.precision == "bfloat16",
            "method qlora computes in bfloat16: set precision bfloat16",
        )
        _check(
            self.num_workers <= self.batch_size,
            f"num_workers {self.num_workers} is more than the batch_size {self.batch_size}: every worker needs a row",
        )
        _check(
            self.checkpoint_every_steps >= 0,
            f"checkpoint_every_steps must not be negative, got {self.checkpoint_every_steps}",
        )
        _check(
            0 <= self.min_workers <= self.num_workers,
            f"min_workers must lie between 0 and num_workers {self.num_workers}, got {self.min_workers}",
        )
        _check(self.resize_check_s > 0, f"resize_check_s must be positive, got {self.resize_check_s}")
        _check(self.max_failures >= -1, f"max_failures must be at least -1, got {self.max_failures}")
        try:
            self.optim  # noqa: B018 - checks what it is made of
        except ValueError as error:
            raise LlmConfigError(str(error).removeprefix("optim.")) from error

    @property
    def adapts(self) -> bool:
        """Whether only adapters are learned."""
        return self.method != "full"

    @property
    def optim(self) -> OptimConfig:
        """As `train.schedule` takes it."""
        return OptimConfig(
            learning_rate=self.learning_rate,
            warmup_share=self.warmup_share,
            weight_decay=self.weight_decay,
            clip_norm=self.clip_norm,
            beta2=0.999,
        )

    def parts(self, workers: int) -> int:
        """Microbatches that a worker takes for one update: the accumulation."""
        mine = -(-self.batch_size // workers)
        return -(-mine // self.microbatch_size)

    def as_dict(self) -> dict[str, Any]:
        """Nested plain values, as JSON takes them."""
        values = asdict(self)
        return {**values, "lora": {**values["lora"], "targets": list(self.lora.targets)}}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "LlmConfig":
        """The inverse of `as_dict`."""
        lora = {**values["lora"], "targets": tuple(values["lora"]["targets"])}
        return cls(**{**values, "lora": LoraConfig(**lora)})

    @property
    def fingerprint(self) -> str:
        """Hash of everything that changes what is learned; the amount of machine is left out."""
        learned = {name: one for name, one in self.as_dict().items() if name not in MACHINE_FIELDS}
        return hashlib.sha256(json.dumps(learned, sort_keys=True).encode()).hexdigest()[:16]
