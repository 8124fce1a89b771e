"""The peers of the training benchmarks: stock Ray Train, and a plain torchrun loop; both as their guides write them.

`python -m torch.distributed.run ... -m jobs.bench.train_peers NOTES` is a rank of the latter. Beside them what both
sides share: the images in memory, and a note of each step in a file.
"""

import functools
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import ray.train
import ray.train.torch
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch.nn.parallel import DistributedDataParallel

from cluster.objects import arrow_filesystem
from cluster.settings import Settings
from data.imaging.preprocess import PixelConfig
from train.config import ModelConfig, OptimConfig
from train.inputs.dataset import Images, TrainingData
from train.vit.model import build_vit

MODEL, SIDE, BATCH, CLASSES = "vit_tiny_patch16_224", 128, 64, 10
STEPS = 40
EVERY = 10
OPTIM = OptimConfig()


def data(images: int) -> TrainingData:
    rng = np.random.default_rng(0)

    def some(count: int, prefix: str) -> Images:
        return Images(
            hashes=[f"{prefix}{nth}" for nth in range(count)],
            pixels_NHW=rng.integers(0, 256, (count, SIDE, SIDE), dtype=np.uint8),
            labels_N=rng.integers(0, CLASSES, count),
        )

    classes = tuple(str(nth) for nth in range(CLASSES))
    return TrainingData(
        train=some(images, "t"), validation=some(BATCH, "v"), classes=classes, pixels=PixelConfig(side=SIDE)
    )


def note(notes: Path, rank: int, step: int, took_s: float) -> None:
    line = {"rank": rank, "step": step, "pid": os.getpid(), "ended_at": time.time(), "took_s": took_s}
    with notes.open("a") as file:
        file.write(json.dumps(line) + "\n")


def note_steps(module: Any, name: str, notes: Path, which: Callable[..., tuple[int, int]]) -> None:
    """Note a module's function each time that it returns; `which` gives rank and step of a call."""
    original = getattr(module, name)

    @functools.wraps(original)
    def noted(*arguments: Any) -> Any:
        rank, step = which(*arguments)
        started_s = time.perf_counter()
        result = original(*arguments)
        note(notes, rank, step, time.perf_counter() - started_s)
        return result

    setattr(module, name, noted)


def read(notes: Path) -> list[dict[str, Any]]:
    """Read the whole lines so far."""
    if not notes.exists():
        return []
    return [json.loads(line) for line in notes.read_text().splitlines(keepends=True) if line.endswith("\n")]


def batch(images: Images, nth: int, rank: int, ranks: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a rank's part of a global batch, normalised."""
    part = BATCH // ranks
    rows = slice(nth * BATCH + rank * part, nth * BATCH + (rank + 1) * part)
    x_BCHW = torch.from_numpy(images.pixels_NHW[rows].astype(np.float32))[:, None] / 255.0
    return (x_BCHW - 0.5) / 0.25, torch.from_numpy(images.labels_N[rows])


def built() -> torch.nn.Module:
    torch.manual_seed(0)
    return build_vit(ModelConfig(name=MODEL), classes=CLASSES, side=SIDE)


def adamw(model: torch.nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW(
        model.parameters(), lr=OPTIM.learning_rate, betas=(OPTIM.beta1, OPTIM.beta2), fused=True
    )


def step(
    model: torch.nn.Module, optimizer: torch.optim.Optimizer, x_BCHW: torch.Tensor, labels_B: torch.Tensor
) -> None:
    F.cross_entropy(model(x_BCHW), labels_B).backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), OPTIM.clip_norm)
    optimizer.step()
    optimizer.zero_grad()


def plain(notes: Path) -> None:
    """Train as a rank of torchrun."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    rank, ranks = dist.get_rank(), dist.get_world_size()
    images = data(BATCH * STEPS).train
    model = DistributedDataParallel(built())
    optimizer = adamw(model)
    for nth in range(STEPS):
        started_s = time.perf_counter()
        step(model, optimizer, *batch(images, nth, rank, ranks))
        note(notes, rank, nth, time.perf_counter() - started_s)
    dist.destroy_process_group()


def stock(settings: Settings, name: str, notes: Path, *, steps: int) -> None:
    """Train with stock Ray Train, in the same bucket."""
    ray.train.torch.TorchTrainer(
        stock_loop,
        train_loop_config={"notes": str(notes), "steps": steps},
        scaling_config=ray.train.ScalingConfig(num_workers=2),
        run_config=ray.train.RunConfig(
            name=name,
            storage_path=f"{settings.bucket('checkpoints')}/bench",
            storage_filesystem=arrow_filesystem(settings),
            failure_config=ray.train.FailureConfig(max_failures=3),
            logging_config=ray.train.LoggingConfig("WARNING"),
        ),
    ).fit()


def stock_loop(config: dict[str, Any]) -> None:
    torch.set_num_threads(1)
    rank = ray.train.get_context().get_world_rank()
    images = data(BATCH * config["steps"]).train
    model = ray.train.torch.prepare_model(built())
    optimizer = adamw(model)
    first = 0
    if (newest := ray.train.get_checkpoint()) is not None:
        with newest.as_directory() as folder:
            saved = torch.load(Path(folder) / "state.pt", weights_only=True)
        model.module.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        first = saved["step"]
    for nth in range(first, config["steps"]):
        started_s = time.perf_counter()
        step(model, optimizer, *batch(images, nth, rank, 2))
        note(Path(config["notes"]), rank, nth, time.perf_counter() - started_s)
        if (nth + 1) % EVERY == 0:
            with tempfile.TemporaryDirectory() as folder:
                made = None
                if rank == 0:
                    state = {"model": model.module.state_dict(), "optimizer": optimizer.state_dict()}
                    torch.save({**state, "step": nth + 1}, Path(folder) / "state.pt")
                    made = ray.train.Checkpoint.from_directory(folder)
                ray.train.report({"step": nth + 1}, checkpoint=made)


if __name__ == "__main__":
    plain(Path(sys.argv[1]))
