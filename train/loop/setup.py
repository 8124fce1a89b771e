"""The ViT on one rank, as the training loop needs it: the model as its strategy lays it out, data, settings."""

import functools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.distributed as dist

from train.checkpoints.state import AVERAGE_NAME, WEIGHTS_NAME, Progress
from train.config import OptimConfig, TrainConfig
from train.config_checks import TrainConfigError
from train.inputs.dataset import TrainingData, class_weights
from train.inputs.mixup import Blend, blend
from train.loop import step, validate
from train.loop.interfaces import Speed
from train.strategies.ema import Average
from train.strategies.strategy import Strategy, wrap
from train.vit.model import build_vit


@dataclass(frozen=True, kw_only=True)
class TrainContext:
    """Implements `train.loop.interfaces.Setup`."""

    config: TrainConfig
    data: TrainingData
    run: str
    """Identity of the run, in its checkpoints."""
    strategy: Strategy
    average: Average | None
    """Of the weights; None where `ema_decay` is 0."""
    weights_K: np.ndarray
    """Weight of an image by class."""
    blend: Callable[[int], Blend]
    """Which images are blended with which in an epoch."""
    device: torch.device
    skips_diverged: bool = True

    @property
    def rank(self) -> int:
        return dist.get_rank()

    @property
    def world_size(self) -> int:
        return dist.get_world_size()

    @property
    def optim(self) -> OptimConfig:
        return self.config.optim

    @property
    def hashes(self) -> Sequence[str]:
        return self.data.train.hashes

    @property
    def elastic(self) -> bool:
        return self.strategy.elastic

    @property
    def about(self) -> dict[str, object]:
        model = self.config.model
        return {
            "architecture": f"{model.name} {json.dumps(model.kwargs, sort_keys=True)}",
            "classes": list(self.data.classes),
            "run": self.run,
        }

    def state(self) -> dict[str, torch.Tensor]:
        return self.strategy.tensors() | (self.average.tensors() if self.average else {})

    def adopt(self) -> None:
        self.strategy.load_masters()

    def buffers(self) -> list[torch.Tensor]:
        return [*self.strategy.module.buffers(), *(self.average.buffers() if self.average else [])]

    def update(self, progress: Progress, batch_B: np.ndarray, speed: Speed) -> tuple[float, float]:
        return step.update(self, progress, batch_B, speed)

    def validate(self) -> dict[str, float]:
        return validate.validate(self)

    def speed_row(self, speed: Speed) -> dict[str, float]:
        return {**speed.row("images"), "data_wait_s": speed.data_s / max(speed.steps, 1)}

    def final_weights(self) -> Iterator[tuple[str, dict[str, torch.Tensor]]]:
        """Yield the raw weights, and their average if there is one; all ranks call it."""
        yield WEIGHTS_NAME, self.strategy.full_weights()
        if self.average is not None:
            with self.average.in_place():
                yield AVERAGE_NAME, self.strategy.full_weights()

    def close(self) -> None:
        self.data.close()


def prepare(
    config: TrainConfig,
    data: TrainingData,
    *,
    run: str,
    device: torch.device,
    start: Mapping[str, torch.Tensor] | None = None,
) -> TrainContext:
    """Build the model, lay it out over the ranks, and give it its optimizer.

    Args:
        start: initial weights by name; None: random ones that depend on the seed alone.
    Raises:
        TrainConfigError: the initial weights are of another model, or the strategy cannot be had.
    """
    torch.manual_seed(config.seed)
    model = build_vit(config.model, classes=len(data.classes), side=data.pixels.side)
    if start is not None:
        _load_initial(model, start, config)
    strategy = wrap(model, config, device)
    blended = functools.partial(blend, data.train.hashes, alpha=config.augment.mixup, seed=config.seed)
    return TrainContext(
        config=config,
        data=data,
        run=run,
        strategy=strategy,
        average=Average(strategy, config.ema_decay) if config.ema_decay else None,
        weights_K=class_weights(data.train.labels_N, len(data.classes), config.class_balance),
        blend=functools.lru_cache(maxsize=1)(lambda epoch: blended(epoch=epoch)),
        device=device,
    )


def _load_initial(model: torch.nn.Module, start: Mapping[str, torch.Tensor], config: TrainConfig) -> None:
    try:
        model.load_state_dict(start)
    except RuntimeError as error:
        raise TrainConfigError(
            f"the first weights (model.start {config.model.start}) are not those of {config.model.name} with "
            f"{config.model.kwargs}: {' '.join(str(error).split())[:300]}"
        ) from error
