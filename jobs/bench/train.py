"""The benchmarks of training: recovery after a kill, what checkpoints cost, our loop beside a plain one.

Each starts a platform of its own, on which `jobs.bench.train_inside` does the work of both sides in turns.
"""

import json
from typing import Any

from jobs.bench.figure import Figure
from jobs.runtime.throwaway_platform import own_platform


def inside(what: str) -> dict[str, Any]:
    with own_platform() as platform:
        told: dict[str, Any] = json.loads(platform.run("jobs.bench.train_inside", what))
    return told


def train_recovery() -> Figure:
    """Kill of a worker to the first step that is new."""
    told = inside("recovery")
    peer = "stock Ray Train: DDP, torch.save and report each 10 steps, max_failures=3"
    return Figure.of("train_recovery", told["ours"], told["peer"], peer, "s, median")


def checkpoint_stall() -> Figure:
    """Share of the time of 50 steps that a checkpoint takes: the copy, and what the upload slows the steps down."""
    told = inside("stall")
    return Figure.of("checkpoint_stall", told["ours"], 1.0, "no checkpoint", "share of step time")


def train_vs_torchrun() -> Figure:
    told = inside("torchrun")
    peer = "a plain torchrun DDP loop, same model, batches and tensors in memory"
    return Figure.of("train_vs_torchrun", told["ours"], told["peer"], peer, "images/s, median")


BENCHMARKS = (
    train_recovery,
    checkpoint_stall,
    train_vs_torchrun,
)
