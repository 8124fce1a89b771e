"""Named runs: each returns the whole configuration of a pipeline. Default < recipe < command line.

Where their numbers come from is in docs/experiments.md.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from data.dataset.etl import EtlConfig
from data.imaging.preprocess import PixelConfig
from data.synthetic.generator import SyntheticConfig
from data.validation.config import ValidationConfig
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
        """Return the ETL settings for these sources of the catalog."""
        return replace(self.etl, sources=sources)


LEVIT = ModelConfig(
    name="levit_128s",
    kwargs={"distilled": False, "embed_dim": [96, 128, 160], "num_heads": [3, 4, 5], "depth": [2, 2, 2]},
)
"""LeViT (arXiv:2104.01136), narrowed: a Vision Transformer behind a convolutional patch embedding. Plain ViTs and
those with one convolution in front learned next to nothing in the same time (docs/experiments.md)."""


def demo() -> Recipe:
    """Train on synthetic X-rays, in minutes on two CPU cores."""
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
            fsdp_unit="model",
        ),
        ask=AskConfig(per_class=2, explanations=2),
    )


def xrays() -> Recipe:
    """Train on a few thousand real X-rays, from scratch, within an hour of CPU time: half an hour on two idle cores."""
    return Recipe(
        etl=EtlConfig(pixels=PixelConfig(side=128)),
        train=TrainConfig(
            model=ModelConfig(name="levit_128", kwargs={"distilled": False}, drop_path_rate=0.05),
            optim=OptimConfig(learning_rate=2e-3, warmup_share=0.05, weight_decay=0.1),
            augment=AugmentConfig(
                rotation_degrees=8, shift=0.05, zoom=0.1, brightness=0.3, contrast=0.15, mixup=0.2
            ),
            epochs=70,
            batch_size=32,
            label_smoothing=0.1,
            class_balance=0.7,
            ema_decay=0.998,
            fsdp_unit="model",
        ),
    )


def xrays_quick() -> Recipe:
    """Train on the same within eight minutes on two idle cores: as accurate, and worse at rare classes. A folder's
    default.
    """
    slow = xrays()
    sizes = {"embed_dim": [128, 160, 192], "num_heads": [4, 5, 6], "depth": [2, 3, 3]}
    train = replace(
        slow.train,
        model=ModelConfig(name="levit_128s", kwargs={"distilled": False, **sizes}, drop_path_rate=0.05),
        augment=replace(slow.train.augment, mixup=0.0),
        epochs=30,
        class_balance=0.3,
        ema_decay=0.0,
    )
    return replace(slow, train=train)


def smoke() -> Recipe:
    """Run the chain in the fewest seconds that still mean something: for tests, not for answers."""
    return Recipe(
        synthetic=SyntheticConfig(images=240),
        etl=EtlConfig(pixels=PixelConfig(side=64)),
        train=TrainConfig(model=LEVIT, epochs=1, fsdp_unit="model"),
        ask=AskConfig(per_class=1, explanations=1),
    )


def _plain_vit(name: str, side: int, train: TrainConfig) -> Recipe:
    """Make a rung of the ladder; sizes, global batches and memory are in docs/training.md."""
    return Recipe(
        etl=EtlConfig(pixels=PixelConfig(side=side)),
        train=replace(train, model=replace(train.model, name=name)),
    )


def vit_tiny() -> Recipe:
    """Train a ViT-tiny behind a small ResNet stem, on two CPU workers, from scratch: the lowest rung of the ladder."""
    return _plain_vit(
        "vit_tiny_r_s16_p8_224",
        128,
        TrainConfig(
            model=ModelConfig(drop_path_rate=0.05),
            optim=OptimConfig(learning_rate=1e-3, warmup_share=0.1),
            strategy="ddp",
            epochs=30,
            batch_size=64,
            microbatch_size=16,
            label_smoothing=0.1,
            class_balance=0.3,
        ),
    )


ON_GPUS = TrainConfig(
    model=ModelConfig(start="timm", drop_path_rate=0.1),
    optim=OptimConfig(learning_rate=5e-4, beta2=0.999, layer_decay=0.75, warmup_share=0.1),
    augment=AugmentConfig(mixup=0.2),
    use_gpu=True,
    cpus_per_worker=6,
    precision="bfloat16",
    compile=True,
    ema_decay=0.9995,
    label_smoothing=0.1,
    class_balance=0.5,
    epochs=40,
    checkpoint_every_steps=50,
)
"""What the rungs on A100s share: timm's weights, fine-tuned with layer-wise decay as BEiT does (arXiv:2106.08254)."""


def vit_small() -> Recipe:
    """Train a ViT-S/16 on one A100."""
    small = replace(ON_GPUS, strategy="ddp", num_workers=1, batch_size=128)
    return _plain_vit("vit_small_patch16_224", 224, replace(small, microbatch_size=128))


def vit_base() -> Recipe:
    """Train a ViT-B/16 on four A100s."""
    base = replace(ON_GPUS, strategy="ddp", num_workers=4, batch_size=256)
    return _plain_vit("vit_base_patch16_224", 224, replace(base, microbatch_size=64))


def vit_large() -> Recipe:
    """Train a ViT-L/16 at 384 on four A100s: shared out by FSDP2, four microbatches an update."""
    large = replace(ON_GPUS, strategy="fsdp", num_workers=4, batch_size=256)
    large = replace(
        large,
        model=replace(large.model, drop_path_rate=0.2),
        optim=replace(large.optim, learning_rate=3e-4, layer_decay=0.8),
    )
    return _plain_vit("vit_large_patch16_384", 384, replace(large, microbatch_size=16))


def vit_large_zero() -> Recipe:
    """Train the same by DeepSpeed, ZeRO stage 2."""
    large = vit_large()
    return replace(large, train=replace(large.train, strategy="deepspeed", zero_stage=2))


MADE_BY = (demo, xrays, xrays_quick, smoke, vit_tiny, vit_small, vit_base, vit_large, vit_large_zero)
RECIPES: dict[str, Callable[[], Recipe]] = {made.__name__: made for made in MADE_BY}
"""By the names of their functions."""


def recipe(name: str) -> Recipe:
    """Return the recipe of this name.

    Raises:
        KeyError: there is none; it has the name and the names there are.
    """
    if name not in RECIPES:
        raise KeyError(f"{name!r}; there are {', '.join(RECIPES)}")
    return RECIPES[name]()
