"""Settings of a fine-tuning of the language model, checked at construction.

`jobs/finetune_llm.py` fills them from the command line; the resolved configuration is logged to MLflow and stored in
the model's card. Knows neither torch nor LitGPT.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from train.config import OptimConfig, WorkersConfig
from train.config_checks import TrainConfigError, require

TARGETS = ("query", "key", "value", "projection", "mlp", "head")
Method = Literal["full", "lora", "qlora"]


@dataclass(frozen=True, kw_only=True)
class LoraConfig:
    """Low-rank adapters beside frozen weights (arXiv:2106.09685)."""

    r: int = 8
    """Rank of each adapter."""
    alpha: int = 16
    """An adapter's output is multiplied by alpha / r."""
    dropout: float = 0.05
    """Of the input of an adapter."""
    targets: tuple[str, ...] = ("query", "key", "value", "projection")
    """Which projections have an adapter: some of query, key, value, projection, mlp, head."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "targets", tuple(self.targets))  # JSON has a list
        require(self.r >= 1, f"lora.r must be at least 1, got {self.r}")
        require(self.alpha >= 1, f"lora.alpha must be at least 1, got {self.alpha}")
        require(0 <= self.dropout < 1, f"lora.dropout must lie in [0, 1), got {self.dropout}")
        unknown = sorted(set(self.targets) - set(TARGETS))
        require(
            bool(self.targets) and not unknown,
            f"lora.targets are some of {', '.join(TARGETS)}, got {', '.join(unknown) or 'none'}",
        )


@dataclass(frozen=True, kw_only=True)
class LlmConfig(WorkersConfig):
    """One fine-tuning of the language model."""

    PARTS: ClassVar[Mapping[str, type[Any]]] = {"lora": LoraConfig}

    method: Method = "lora"
    """`full`: every weight; `lora`: adapters only; `qlora`: adapters beside weights in 4 bits (NF4, CUDA only)."""
    lora: LoraConfig = field(default_factory=LoraConfig)
    """For `lora` and `qlora`."""
    epochs: int = 2
    batch_size: int = 4
    """Rows of a global batch, over all workers; with `packing` a row holds several pairs."""
    microbatch_size: int = 1
    """Rows that a worker passes through the model at once; the rest of its share is accumulated."""
    max_seq_length: int = 512
    """Tokens of a row; a longer pair is refused."""
    packing: bool = True
    """Put several pairs into a row, where they do not see each other."""
    learning_rate: float = 1e-3
    """Peak; about 1e-3 for adapters and 5e-5 for `full`."""
    warmup_share: float = 0.1
    """Share of all steps over which the rate rises from zero."""
    weight_decay: float = 0.0
    clip_norm: float = 1.0
    """Largest global gradient norm; 0: no clipping."""
    checkpoint_every_steps: int = 10
    num_workers: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.microbatch_size >= 1, f"microbatch_size must be at least 1, got {self.microbatch_size}")
        require(self.max_seq_length >= 16, f"max_seq_length must be at least 16, got {self.max_seq_length}")
        require(
            self.method != "qlora" or self.use_gpu,
            "method qlora needs a GPU, as NF4 is there on CUDA only: take method lora, or use_gpu true on a machine "
            "that has one",
        )
        require(
            self.method != "qlora" or self.precision == "bfloat16",
            "method qlora computes in bfloat16: set precision bfloat16",
        )
        try:
            self.optim  # noqa: B018 - its construction checks the values
        except TrainConfigError as error:
            raise TrainConfigError(str(error).removeprefix("optim.")) from error

    @property
    def adapts(self) -> bool:
        """Whether only adapters are learned."""
        return self.method != "full"

    @property
    def optim(self) -> OptimConfig:
        """Settings of AdamW, as `train.loop.lr_schedule` takes them."""
        return OptimConfig(
            learning_rate=self.learning_rate,
            warmup_share=self.warmup_share,
            weight_decay=self.weight_decay,
            clip_norm=self.clip_norm,
            beta2=0.999,
        )

    def as_dict(self) -> dict[str, Any]:
        """Return nested plain values, as JSON takes them."""
        values = super().as_dict()
        return {**values, "lora": {**values["lora"], "targets": list(self.lora.targets)}}
