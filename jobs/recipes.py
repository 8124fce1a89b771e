"""Named runs: each returns the whole configuration of a pipeline. Default < recipe < command line.

Where their numbers come from is in docs/experiments.md.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from data.etl import EtlConfig
from data.preprocess import PixelConfig
from data.synthetic import SyntheticConfig
from data.validation import ValidationConfig
from jobs.ask import AskConfig
from train.config import AugmentConfig, ModelConfig, OptimConfig, TrainConfig


@dataclass(frozen=True, kw_only=True)
class Recipe:
    etl: EtlConfig
    train: TrainConfig
    synthetic: SyntheticConfig = field(default_factory=SyntheticConfig)
    """What is drawn where no folder is given."""
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    ask: AskConfig = field(default_factory=AskConfig)

    def etl_of(self, sources: tuple[str, ...]) -> EtlConfig:
        """The ETL settings for these sources of the catalog."""
        return replace(self.etl, sources=sources)


LEVIT = ModelConfig(
    name="levit_128s",
    kwargs={"distilled": False, "embed_dim": [96, 128, 160], "num_heads": [3, 4, 5], "depth": [2, 2, 2]},
)
"""LeViT (arXiv:2104.01136), narrowed: a Vision Transformer behind a convolutional patch embedding. Plain ViTs and
those with one convolution in front learned next to nothing in the same time (docs/experiments.md)."""


def demo() -> Recipe:
    """Synthetic X-rays, minutes on two CPU cores."""
    return Recipe(
        synthetic=SyntheticConfig(images=2800),
        etl=EtlConfig(pixels=PixelConfig(side=96)),
        train=TrainConfig(
            model=LEVIT,
            optim=OptimConfig(learning_rate=2e-3, warmup_share=0.05),
            augment=AugmentConfig(rotation_degrees=3, shift=0.02, zoom=0.03, brightness=0.2, contrast=0.1),
            epochs=18,
            batch_size=32,
            label_smoothing=0.05,
        ),
        ask=AskConfig(per_class=2, explanations=2),
    )


def xrays() -> Recipe:
    """A few thousand real X-rays within twenty minutes on two CPU cores."""
    return Recipe(
        etl=EtlConfig(pixels=PixelConfig(side=128)),
        train=TrainConfig(
            model=ModelConfig(
                name="levit_128s",
                kwargs={
                    "distilled": False,
                    "embed_dim": [128, 160, 192],
                    "num_heads": [4, 5, 6],
                    "depth": [2, 3, 3],
                },
                drop_path_rate=0.05,
            ),
            optim=OptimConfig(learning_rate=2e-3, warmup_share=0.05, weight_decay=0.1),
            augment=AugmentConfig(rotation_degrees=8, shift=0.05, zoom=0.1, brightness=0.3, contrast=0.15),
            epochs=30,
            batch_size=32,
            label_smoothing=0.1,
            class_balance=0.3,
        ),
    )


def smoke() -> Recipe:
    """The chain in the fewest seconds that still mean something: for tests, not for answers."""
    return Recipe(
        synthetic=SyntheticConfig(images=240),
        etl=EtlConfig(pixels=PixelConfig(side=64)),
        train=TrainConfig(model=LEVIT, epochs=1),
        ask=AskConfig(per_class=1, explanations=1),
    )


RECIPES: dict[str, Callable[[], Recipe]] = {"demo": demo, "xrays": xrays, "smoke": smoke}


def recipe(name: str) -> Recipe:
    """Raises KeyError with the name and the names there are."""
    if name not in RECIPES:
        raise KeyError(f"{name!r}; there are {', '.join(RECIPES)}")
    return RECIPES[name]()
