"""What stays the same over a run, on one rank: the model as its strategy lays it out, the data, the settings."""

import functools
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
import torch.distributed as dist

from train.checkpoint import AVERAGE_NAME, WEIGHTS_NAME
from train.config import TrainConfig, TrainConfigError
from train.dataset import TrainingData, class_weights
from train.ema import Average
from train.mixup import Blend, blend
from train.model import build_vit
from train.sample_order import batches_per_epoch
from train.strategy import Strategy, wrap


@dataclass(frozen=True, kw_only=True)
class Setup:
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
    """Who is blended with whom in an epoch."""
    device: torch.device

    @property
    def rank(self) -> int:
        return dist.get_rank()

    @property
    def world_size(self) -> int:
        return dist.get_world_size()

    @property
    def batches(self) -> int:
        return batches_per_epoch(len(self.data.train), self.config.batch_size)

    @property
    def steps(self) -> int:
        return self.batches * self.config.epochs

    @property
    def about(self) -> dict[str, object]:
        """What its checkpoints belong to, as JSON takes it."""
        model = self.config.model
        return {
            "architecture": f"{model.name} {json.dumps(model.kwargs, sort_keys=True)}",
            "classes": list(self.data.classes),
            "run": self.run,
        }

    def state(self) -> dict[str, torch.Tensor]:
        """Every tensor that the rest of the run depends on, by name; filled in place when a run goes on."""
        return self.strategy.tensors() | (self.average.tensors() if self.average else {})

    def buffers(self) -> list[torch.Tensor]:
        """The running statistics that each rank has for itself between two agreements."""
        return [*self.strategy.module.buffers(), *(self.average.buffers() if self.average else [])]

    def final_weights(self) -> Iterator[tuple[str, dict[str, torch.Tensor]]]:
        """Unsharded weights by file name: the raw ones, and their average where there is one; all ranks call it."""
        yield WEIGHTS_NAME, self.strategy.full_weights()
        if self.average is not None:
            with self.average.in_place():
                yield AVERAGE_NAME, self.strategy.full_weights()


def prepare(
    config: TrainConfig,
    data: TrainingData,
    *,
    run: str,
    device: torch.device,
    start: Mapping[str, torch.Tensor] | None = None,
) -> Setup:
    """Build the model, lay it out over the ranks, and give it its optimizer.

    Args:
        start: the first weights, by name; without them they depend on the seed alone.
    """
    torch.manual_seed(config.seed)
    model = build_vit(config.model, classes=len(data.classes), side=data.pixels.side)
    if start is not None:
        _begin_with(model, start, config)
    strategy = wrap(model, config, device)
    mixed = functools.partial(blend, data.train.hashes, alpha=config.augment.mixup, seed=config.seed)
    return Setup(
        config=config,
        data=data,
        run=run,
        strategy=strategy,
        average=Average(strategy, config.ema_decay) if config.ema_decay else None,
        weights_K=class_weights(data.train.labels_N, len(data.classes), config.class_balance),
        blend=functools.lru_cache(maxsize=1)(lambda epoch: mixed(epoch=epoch)),
        device=device,
    )


def _begin_with(model: torch.nn.Module, start: Mapping[str, torch.Tensor], config: TrainConfig) -> None:
    try:
        model.load_state_dict(start)
    except RuntimeError as error:
        raise TrainConfigError(
            f"the first weights (model.start {config.model.start}) are not those of {config.model.name} with "
            f"{config.model.kwargs}: {' '.join(str(error).split())[:300]}"
        ) from error
