"""The training loop on one CUDA device: a script that `test_on_gpu.py` runs once, and that anyone may run by hand.

python tests/gpu/on_gpu.py FOLDER [SCENARIO ...] writes FOLDER/results.json; without names, all scenarios run.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(
    0, str(Path(__file__).resolve().parents[1] / "ranks")
)  # `ranks.py` is a script beside another one
import ranks
from ranks import CONFIG, PLAIN, ROUGH, run

from data.imaging.preprocess import PixelConfig
from jobs.recipes import recipe
from train.checkpoints.state import Progress
from train.config import AugmentConfig, ModelConfig
from train.inputs.dataset import Images, TrainingData
from train.inputs.sample_order import epoch_order, global_batch
from train.loop.interfaces import Speed
from train.loop.setup import TrainContext, prepare
from train.strategies.collectives import make_deterministic
from train.strategies.memory_estimate import estimate

CUDA, CPU = torch.device("cuda"), torch.device("cpu")
ALONE = {"num_workers": 1, "use_gpu": True}
EVERYTHING = replace(
    ROUGH,
    **ALONE,
    optim=replace(CONFIG.optim, layer_decay=0.7),
    augment=AugmentConfig(mixup=0.4),
    microbatch_size=2,
    ema_decay=0.9,
    activation_checkpointing=True,
)
LEVIT = ModelConfig(name="levit_128s", kwargs=ranks.LEVIT)
WAYS = {
    "ddp": {"strategy": "ddp"},
    "fsdp": {"strategy": "fsdp"},
    "fsdp-offload": {"strategy": "fsdp", "cpu_offload": True},
    "fsdp-bfloat16": {"strategy": "fsdp", "precision": "bfloat16"},
    "ddp-bfloat16": {"strategy": "ddp", "precision": "bfloat16"},
    "ddp-compile": {"strategy": "ddp", "precision": "bfloat16", "compile": True},
    "fsdp-compile": {"strategy": "fsdp", "precision": "bfloat16", "compile": True},
    "fsdp-compile-kept": {
        "strategy": "fsdp",
        "precision": "bfloat16",
        "compile": True,
        "activation_checkpointing": False,
    },
    "levit": {"strategy": "fsdp", "fsdp_unit": "model", "model": LEVIT, "microbatch_size": 0}
    | {"activation_checkpointing": False},
    "zero2": {"strategy": "deepspeed", "zero_stage": 2},
    "zero3-bfloat16": {"strategy": "deepspeed", "zero_stage": 3, "precision": "bfloat16"},
}
LADDER = ("vit_small", "vit_base", "vit_large")
WARM_UP, STEPS = 3, 6


def resumes(way: str, folder: Path) -> dict[str, object]:
    """A run that is killed in the middle and goes on, beside one that nothing disturbs."""
    config = replace(EVERYTHING, **WAYS[way])
    whole = run(config, folder / "whole", device=CUDA)
    run(config, folder / "killed", kill_at=5, device=CUDA)
    resumed = run(config, folder / "killed", device=CUDA)
    one, other = (
        folder / name / "checkpoints" / str(found["checkpoint"])
        for name, found in (("whole", whole), ("killed", resumed))
    )
    differ = [file.name for file in one.iterdir() if file.read_bytes() != (other / file.name).read_bytes()]
    return {"files": len(list(one.iterdir())), "differ": differ, "history": whole["history"]}


def same_losses(folder: Path) -> dict[str, object]:
    """Eight updates in float32 on the GPU and on the CPU."""
    config = replace(PLAIN, num_workers=1, strategy="ddp")
    return {device.type: run(config, folder / device.type, device=device)["losses"] for device in (CUDA, CPU)}


def noise(images: int, side: int) -> TrainingData:
    rng = np.random.default_rng(0)

    def some(count: int, prefix: str) -> Images:
        return Images(
            hashes=[f"{prefix}{nth}" for nth in range(count)],
            pixels_NHW=rng.integers(0, 256, (count, side, side), dtype=np.uint8),
            labels_N=rng.integers(0, 10, count),
        )

    return TrainingData(
        train=some(images, "t"),
        validation=some(8, "v"),
        classes=tuple("abcdefghij"),
        pixels=PixelConfig(side=side),
    )


def rung(name: str, *, compiled: bool) -> dict[str, float]:
    """A recipe of the ladder with one worker's share of its global batch: memory beside the estimate, and speed."""
    found = recipe(name)
    share = found.train.batch_size // found.train.num_workers
    config = replace(
        found.train,
        **ALONE,
        model=replace(found.train.model, start="scratch"),
        batch_size=share,
        compile=compiled,
    )
    side = found.etl.pixels.side
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    context = prepare(config, noise(share * 2, side), run="rung", device=CUDA)
    progress, speed, started_s = Progress(), Speed(), 0.0
    for nth in range(WARM_UP + STEPS):
        if nth == WARM_UP:
            torch.cuda.synchronize()
            speed, started_s = Speed(), time.perf_counter()
        one_update(context, progress, speed)
    torch.cuda.synchronize()
    took_s = time.perf_counter() - started_s
    return {
        "estimated_gib": estimate(config, classes=10, side=side).device / 2**30,
        "peak_gib": torch.cuda.max_memory_allocated() / 2**30,
        "images_per_s": share * STEPS / took_s,
        "data_share": speed.data_s / took_s,
    }


def one_update(context: TrainContext, progress: Progress, speed: Speed) -> None:
    order_N = epoch_order(context.hashes, seed=0, epoch=0)
    context.update(progress, global_batch(order_N, batch=0, batch_size=context.config.batch_size), speed)
    progress.step += 1


def scenarios(folder: Path) -> dict[str, Callable[[], object]]:
    found: dict[str, Callable[[], object]] = {"same-losses": lambda: same_losses(folder / "same")}
    for way in WAYS:
        found[f"resume-{way}"] = lambda way=way: resumes(way, folder / way)
    for name in LADDER:
        found[f"ladder-{name}"] = lambda name=name: rung(name, compiled=False)
        found[f"ladder-{name}-compiled"] = lambda name=name: rung(name, compiled=True)
    return found


def main() -> None:
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault(
        "CUBLAS_WORKSPACE_CONFIG", ":4096:8"
    )  # as `train.runs.workers` sets it for its workers
    make_deterministic(threads=1)
    torch.cuda.set_device(0)
    dist.init_process_group(
        "cpu:gloo,cuda:nccl", init_method=f"file://{folder / 'group'}", rank=0, world_size=1
    )
    found = scenarios(folder)
    results: dict[str, object] = {}
    for name in sys.argv[2:] or found:
        started_s = time.perf_counter()
        try:
            results[name] = found[name]()
        except Exception as error:  # noqa: BLE001 - one scenario's failure is its result, and the test's
            results[name] = {"error": f"{type(error).__name__}: {error}"[:1000]}
        print(f"{name} {time.perf_counter() - started_s:.1f} s {json.dumps(results[name])[:300]}", flush=True)
        (folder / "results.json").write_text(json.dumps(results))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
