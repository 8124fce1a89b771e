"""Named runs: each returns the whole configuration of a pipeline. Default < recipe < command line.

Where their numbers come from is in docs/experiments.md.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from data.etl import EtlConfig
from data.preprocess import PixelConfig
from data.synthetic import SyntheticConfig
from jobs.ask import AskConfig
from train.config import AugmentConfig, ModelConfig, OptimConfig, TrainConfig


@dataclass(frozen=True, kw_only=True)
class Recipe:
    etl: EtlConfig
    train: TrainConfig
    synthetic: SyntheticConfig = field(default_factory=SyntheticConfig)
    """What is drawn where no folder is given."""
    ask: AskConfig = field(default_factory=AskConfig)

    def etl_of(self, sources: tuple[str, ...]) -> EtlConfig:
        """The ETL settings for these sources of the catalog."""
        return replace(self.etl, sources=sources)


def demo() -> Recipe:
    """Synthetic X-rays, minutes on two CPU cores: a small hybrid ViT at 96 pixels."""
    return Recipe(etl=EtlConfig(pixels=PixelConfig(side=96)), train=TrainConfig())


def xrays() -> Recipe:
    """A few thousand real X-rays within twenty minutes on two CPU cores."""
    return Recipe(
        etl=EtlConfig(pixels=PixelConfig(side=128)),
        train=TrainConfig(
            model=ModelConfig(drop_path_rate=0.05),
            optim=OptimConfig(learning_rate=1e-3, weight_decay=0.1),
            augment=AugmentConfig(),
            epochs=12,
            class_balance=0.5,
        ),
    )


def smoke() -> Recipe:
    """The chain in the fewest seconds that still mean something: for tests, not for answers."""
    return Recipe(
        synthetic=SyntheticConfig(images=240),
        etl=EtlConfig(pixels=PixelConfig(side=64)),
        train=TrainConfig(epochs=1),
        ask=AskConfig(per_class=1, explanations=1),
    )


RECIPES: dict[str, Callable[[], Recipe]] = {"demo": demo, "xrays": xrays, "smoke": smoke}


def recipe(name: str) -> Recipe:
    """Raises KeyError with the name and the names there are."""
    if name not in RECIPES:
        raise KeyError(f"{name!r}; there are {', '.join(RECIPES)}")
    return RECIPES[name]()
