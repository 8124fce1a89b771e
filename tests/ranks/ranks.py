"""One rank of the gloo scenarios that `test_fit.py` looks at: run as a script by the fixture `gloo`.

python tests/ranks/ranks.py RANK WORLD_SIZE FOLDER
"""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.fs
import safetensors.torch
import torch
import torch.distributed as dist

from data.imaging.preprocess import PixelConfig
from train.checkpoints.fork import branch
from train.checkpoints.manager import RunCheckpoints
from train.checkpoints.state import CheckpointError, Progress
from train.checkpoints.store import CheckpointStore, Retention
from train.config import AugmentConfig, ModelConfig, OptimConfig, TrainConfig
from train.inputs.dataset import Images, TrainingData
from train.loop.fit import fit
from train.loop.interfaces import StopRequested, TrainingCallbacks, TrainingDivergedError
from train.loop.setup import prepare

CPU = torch.device("cpu")
STILL = AugmentConfig(rotation_degrees=0, shift=0, zoom=0, brightness=0, contrast=0)
CONFIG = TrainConfig(
    model=ModelConfig(name="vit_tiny_patch16_224", kwargs={"depth": 2, "embed_dim": 96}),
    optim=OptimConfig(learning_rate=1e-3),
    epochs=2,
    batch_size=8,
    class_balance=0.5,
    label_smoothing=0.1,
    checkpoint_every_steps=2,
    seed=3,
)
ROUGH = replace(CONFIG, model=replace(CONFIG.model, drop_path_rate=0.3, drop_rate=0.2))
LEVIT = {"distilled": False, "embed_dim": [32, 48, 64], "num_heads": [1, 2, 2], "depth": [1, 1, 1]}
NORMS = replace(CONFIG, model=ModelConfig(name="levit_128s", kwargs=LEVIT), epochs=1)
PLAIN = replace(CONFIG, augment=STILL)
LONG = replace(PLAIN, epochs=38, checkpoint_every_steps=10, label_smoothing=0.2)
POISONED = replace(PLAIN, epochs=1, batch_size=2)
POISON = "t11"
"""An image that is white all over: with it in a batch, the model's outputs are no numbers."""


class Killed(Exception):
    pass


class FolderCheckpoints(RunCheckpoints):
    """Checkpoints in a folder that all ranks see."""

    def __init__(self, folder: Path, newest: int = 2) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        store = CheckpointStore(pyarrow.fs.LocalFileSystem(), str(folder / "checkpoints"))
        super().__init__(store, Retention(newest=newest))


def data() -> TrainingData:
    """29 training images: three global batches of eight and one of five, which is uneven over two ranks."""
    rng = np.random.default_rng(0)

    def images(count: int, prefix: str) -> Images:
        return Images(
            hashes=[f"{prefix}{i}" for i in range(count)],
            pixels_NHW=rng.integers(0, 256, (count, 32, 32), dtype=np.uint8),
            labels_N=rng.integers(0, 3, count),
        )

    return TrainingData(
        train=images(29, "t"), validation=images(7, "v"), classes=("a", "b", "c"), pixels=PixelConfig(side=32)
    )


def poisoned(found: TrainingData) -> TrainingData:
    pixels_NHW = found.train.pixels_NHW.copy()
    pixels_NHW[list(found.train.hashes).index(POISON)] = 255
    return replace(found, train=replace(found.train, pixels_NHW=pixels_NHW))


def break_on_white(
    module: torch.nn.Module, inputs: tuple[torch.Tensor], logits_BK: torch.Tensor
) -> torch.Tensor:
    x_BCHW = inputs[0]
    white_B = x_BCHW.flatten(1).amin(dim=1) == x_BCHW.max()
    return logits_BK / (~white_B[:, None]).float()


def run(
    config: TrainConfig,
    folder: Path,
    kill_at: int | None = None,
    name: str = "run",
    poison: bool = False,
    device: torch.device = CPU,
    halt_at: int | None = None,
) -> dict[str, object]:
    """Train to the end or until the kill; what the run left, on rank 0."""
    context = prepare(config, poisoned(data()) if poison else data(), run=name, device=device)
    first_validation = context.validate()["validation_loss"]
    if poison:
        context.strategy.module.register_forward_hook(break_on_white)
    losses: list[float] = []
    before_2 = [0.0, 0.0]

    def step(progress: Progress, steps: int, loss: float) -> None:
        if progress.step == kill_at:
            raise Killed
        now_2 = [progress.loss_sum, progress.weight_sum]
        steps_2 = [now - before for now, before in zip(now_2, before_2, strict=True)]
        sums_2 = torch.tensor(steps_2, device=device)
        dist.all_reduce(sums_2)
        losses.append(float(sums_2[0] / sums_2[1]))
        before_2[:] = now_2 if progress.position.batch else [0.0, 0.0]

    checkpoints = FolderCheckpoints(folder)
    try:
        told: list[int] = []

        def should_continue(history: list[dict[str, float]]) -> bool:
            told.append(len(history))
            return len(history) != halt_at

        callbacks = TrainingCallbacks(step=step, should_continue=should_continue)
        progress = fit(context, checkpoints, callbacks)
    except StopRequested:
        return {"told": told, "losses": losses, "checkpoint": checkpoints.current}
    except Killed:
        checkpoints.flush()
        return {"killed_at": kill_at, "losses": losses}
    except TrainingDivergedError as error:
        return {"stopped": str(error)}
    finally:
        checkpoints.close()
    for file, tensors in context.final_weights():
        if dist.get_rank() == 0:
            safetensors.torch.save_file(tensors, folder / file)
    return {
        "first_validation_loss": first_validation,
        "history": progress.history,
        "step": progress.step,
        "skipped": progress.skipped,
        "losses": losses,
        "checkpoint": checkpoints.current,
        "told": told,
    }


def group(rank: int, world_size: int, store: Path) -> None:
    if dist.is_initialized():
        dist.destroy_process_group()
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world_size)


def main() -> None:
    rank, world_size, folder = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    group(rank, world_size, folder / "two")
    results: dict[str, object] = {"undisturbed": run(ROUGH, folder / "undisturbed")}
    run(replace(ROUGH, checkpoint_every_steps=0), folder / "seldom")
    results["killed"] = run(ROUGH, folder / "killed", kill_at=5)
    results["resumed"] = run(ROUGH, folder / "killed")
    results["halted"] = run(ROUGH, folder / "halted", halt_at=1)
    if rank == 0:
        source, target = (
            CheckpointStore(pyarrow.fs.LocalFileSystem(), str(folder / name / "checkpoints"))
            for name in ("halted", "branched")
        )
        branch(source, 1, target, "another")
    dist.barrier()
    results["branched"] = run(ROUGH, folder / "branched", name="another")
    results["halted-resumed"] = run(ROUGH, folder / "halted")
    results["norms"] = run(NORMS, folder / "norms")
    run(NORMS, folder / "norms-killed", kill_at=3)
    results["norms-resumed"] = run(NORMS, folder / "norms-killed")
    results["two"] = run(PLAIN, folder / "two-ranks")
    results["half"] = run(PLAIN, folder / "elastic", kill_at=5)
    try:
        run(PLAIN, folder / "elastic", name="another")
    except CheckpointError as error:
        results["refusal"] = str(error)
    results["poisoned"] = run(POISONED, folder / "poisoned", poison=True)
    run(POISONED, folder / "poisoned-killed", poison=True, kill_at=12)
    results["poisoned-resumed"] = run(POISONED, folder / "poisoned-killed", poison=True)
    results["poisoned-twice"] = run(replace(POISONED, epochs=2), folder / "twice", poison=True)
    long = {"fsdp": LONG, "ddp": replace(LONG, strategy="ddp")}
    changing: dict[str, list[object]] = {}
    for name, config in long.items():
        results[f"long-{name}"] = run(config, folder / f"long-{name}")
        changing[name] = [run(config, folder / f"changing-{name}", kill_at=53)]
    if rank == 0:
        group(0, 1, folder / "one")
        results["one"] = run(PLAIN, folder / "one-rank")
        results["elastic"] = run(PLAIN, folder / "elastic")
        for name, config in long.items():
            changing[name].append(run(config, folder / f"changing-{name}", kill_at=105))
    group(rank, world_size, folder / "two-again")
    for name, config in long.items():
        changing[name].append(run(config, folder / f"changing-{name}"))
    if rank == 0:
        (folder / "results.json").write_text(json.dumps(results | {"changing": changing}))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
