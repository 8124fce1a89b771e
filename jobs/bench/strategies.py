"""How much of a model each worker holds: `fsdp` beside `ddp`, two ranks, byte by byte.

Run as `python -m jobs.bench.strategies RANK STORE STRATEGY` it is one of the ranks. For `fsdp` torch's own tracker of
memory follows every tensor of two updates of the real loop and says what it is of; the figure is the highest sum, at
any moment, of parameters, gradients and optimizer state – gathered parameters and the buffers of collectives among
them, activations not. For `ddp` it is what lies there between backward pass and update.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch.distributed._tools.fsdp2_mem_tracker import FSDPMemTracker

from data.imaging.preprocess import PixelConfig
from jobs.bench.figure import Figure
from train.checkpoints.state import Progress
from train.config import ModelConfig, TrainConfig
from train.inputs.dataset import Images, TrainingData
from train.inputs.sample_order import global_batch
from train.loop.interfaces import Speed
from train.loop.setup import prepare

RANKS, BATCH, UPDATES, SIDE = 2, 8, 3, 64
MODEL = ModelConfig(name="vit_small_patch16_224")
OTHER = {"Activation", "Temp", "Inputs", "Buffer", "Other", "Total"}
"""What is no parameter, gradient or optimizer state."""
MIB = 2**20


def held(snapshot: Mapping[Any, Mapping[Any, int]]) -> int:
    """Return the bytes of parameters, gradients and optimizer state in one moment, over all devices."""
    kinds = [item for device in snapshot.values() for item in device.items()]
    return sum(size for kind, size in kinds if str(getattr(kind, "value", kind)) not in OTHER)


def watched(kind: type[Any]) -> type[Any]:
    """Derive a tracker of torch's that remembers the highest sum of what is held."""

    class Watched(kind):
        peak = 0

        def _update_peak_stats(self, peak_state: Any) -> None:
            super()._update_peak_stats(peak_state)
            self.peak = max(self.peak, held(self._curr_mem_snap))

    return Watched


def data() -> TrainingData:
    rng = np.random.default_rng(0)
    images = Images(
        hashes=[str(nth) for nth in range(BATCH * UPDATES)],
        pixels_NHW=rng.integers(0, 256, (BATCH * UPDATES, SIDE, SIDE), dtype=np.uint8),
        labels_N=rng.integers(0, 3, BATCH * UPDATES),
    )
    return TrainingData(
        train=images, validation=images, classes=("a", "b", "c"), pixels=PixelConfig(side=SIDE)
    )


def rank(nth: int, store: Path, strategy: str) -> int:
    """Return the peak bytes of this rank."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=nth, world_size=RANKS)
    config = TrainConfig(model=MODEL, strategy=strategy, batch_size=BATCH)  # type: ignore[arg-type]
    context = prepare(config, data(), run="bench", device=torch.device("cpu"))
    progress = Progress()

    def step() -> None:
        batch_B = global_batch(np.arange(BATCH * UPDATES), batch=progress.step, batch_size=BATCH)
        context.update(progress, batch_B, Speed())
        progress.step += 1

    step()  # optimizer state and DDP's buckets are there after it
    measure = sharded_peak if strategy == "fsdp" else whole_peak
    peak_bytes = measure(context.strategy, lambda: progress.step < UPDATES, step)
    dist.destroy_process_group()
    return peak_bytes


def sharded_peak(strategy: Any, more: Callable[[], bool], step: Callable[[], None]) -> int:
    """Return the peak that torch's tracker sees: shards, gathered parameters and the buffers of collectives."""
    tracker = watched(FSDPMemTracker)(strategy.module, strategy.torch)
    with tracker:
        while more():
            step()
            tracker.reset_mod_stats()  # the tracker's own figures are of one update
    return int(tracker.peak)


def whole_peak(strategy: Any, more: Callable[[], bool], step: Callable[[], None]) -> int:
    """Return what lies there between backward pass and update, as DDP gathers nothing; buckets are counted once."""
    seen: list[int] = []
    update_weights = strategy.update

    def counted(learning_rate: float) -> float:
        parameters = list(strategy.module.parameters())
        states = [tensor for state in strategy.torch.state.values() for tensor in state.values()]
        tensors = [*parameters, *(parameter.grad for parameter in parameters), *states]
        storages = {
            tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors
        }
        seen.append(sum(storages.values()))
        return float(update_weights(learning_rate))

    strategy.update = counted
    while more():
        step()
    return max(seen)


def peak(strategy: str) -> float:
    """Return the mean of the ranks' peaks, MiB."""
    env = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "jobs.bench.strategies"]
        ranks = [
            subprocess.Popen(
                [*command, str(nth), f"{folder}/store", strategy], env=env, stdout=subprocess.PIPE, text=True
            )
            for nth in range(RANKS)
        ]
        outputs = [process.communicate(timeout=300)[0] for process in ranks]
    assert all(process.returncode == 0 for process in ranks), outputs
    return statistics.mean(json.loads(output.splitlines()[-1]) for output in outputs) / MIB


def fsdp_memory() -> Figure:
    peer = "the same model and updates by DDP: parameters, gradients and optimizer state"
    return Figure.of("fsdp_memory", peak("fsdp"), peak("ddp"), peer, "MiB a rank, peak")


BENCHMARKS = (fsdp_memory,)

if __name__ == "__main__":
    sys.stdout.write(f"{json.dumps(rank(int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]))}\n")
