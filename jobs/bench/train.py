"""The benchmarks of training: recovery after a kill, what checkpoints cost, our loop beside a plain one.

Each starts a platform of its own and there `python -m jobs.bench.train WHAT`, which does the work of both sides in
turns, a job's line last. Our side is `train.runs.workers.fit_on_workers`, as `jobs.train` calls it; the workers note
the time of each step in a file. The peers are in `jobs.bench.train_peers`. Both sides have the same model, images,
batches and number of workers.
"""

import functools
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil

from cluster.objects import arrow_filesystem
from cluster.settings import Settings
from jobs.bench import train_peers as peers
from jobs.bench.figure import Figure
from jobs.runtime import entry
from jobs.runtime.throwaway_platform import own_platform
from train.checkpoints.store import CheckpointStore
from train.config import AugmentConfig, ModelConfig, TrainConfig
from train.inputs.dataset import TrainingData
from train.loop import fit
from train.loop.setup import TrainContext
from train.runs.worker import VitInputs
from train.runs.workers import fit_on_workers

STILL = AugmentConfig(rotation_degrees=0, shift=0, zoom=0, brightness=0, contrast=0)
CONFIG = TrainConfig(
    model=ModelConfig(name=peers.MODEL),
    augment=STILL,
    strategy="ddp",
    batch_size=peers.BATCH,
    epochs=1,
    checkpoint_every_steps=2,
    max_failures=3,
)
ROUNDS = 3
KILL_AT = (23, 26, 29)
"""Steps: early, in the middle and late between two checkpoints of the peer."""
RECOVERY_STEPS = 36
STALL_INTERVAL = 50


def load(notes: Path, images: int) -> TrainingData:
    """Return the images; has this worker note when each update ended and how long each snapshot took."""
    commits = notes.with_suffix(".commits")
    for owner, name, file in ((TrainContext, "update", notes), (fit, "_commit", commits)):
        peers.note_steps(owner, name, file, lambda context, progress, *_: (context.rank, progress.step))
    return peers.data(images)


def train_ours(settings: Settings, name: str, notes: Path, config: TrainConfig, images: int) -> None:
    store = CheckpointStore(arrow_filesystem(settings), f"{settings.bucket('checkpoints')}/bench/{name}")
    inputs = VitInputs(
        load=functools.partial(load, notes, images), mlflow_tracking_uri=None, mlflow_run_id=None, store=store
    )
    fit_on_workers(config, inputs, name)


def recovery(settings: Settings, folder: Path) -> dict[str, float]:
    sides: dict[str, Callable[[str, Path], None]] = {
        "ours": lambda name, notes: train_ours(settings, name, notes, CONFIG, peers.BATCH * RECOVERY_STEPS),
        "peer": lambda name, notes: peers.stock(settings, name, notes, steps=RECOVERY_STEPS),
    }
    times: dict[str, list[float]] = {side: [] for side in sides}
    for nth, step in enumerate(KILL_AT):
        for side, work in sides.items():
            notes = folder / f"{side}-{nth}"
            times[side].append(_recovered(functools.partial(work, f"{side}-{nth}", notes), notes, step))
    sys.stderr.write(f"seconds to the first new step: {times}\n")
    return {side: statistics.median(seconds) for side, seconds in times.items()}


def _recovered(work: Callable[[], None], notes: Path, step: int) -> float:
    """Return the seconds from the kill of a worker after this step to the end of the first new step."""
    killed: list[float] = []

    def kill() -> None:
        while not peers.read(notes) or peers.read(notes)[-1]["step"] < step:
            time.sleep(0.02)
        pid = next(row["pid"] for row in reversed(peers.read(notes)) if row["rank"] == 1)
        psutil.Process(pid).kill()
        killed.append(time.time())

    killer = threading.Thread(target=kill)
    killer.start()
    work()
    killer.join()
    done = max(row["step"] for row in peers.read(notes) if row["ended_at"] <= killed[0])
    return min(row["ended_at"] for row in peers.read(notes) if row["step"] > done) - killed[0]


def stall(settings: Settings, folder: Path) -> dict[str, float]:
    """Measure the share of time that checkpoints take: steps beside an upload against others, and the copies."""
    config = replace(CONFIG, checkpoint_every_steps=STALL_INTERVAL)
    notes = folder / "stall"
    train_ours(settings, "stall", notes, config, peers.BATCH * (4 * STALL_INTERVAL + 2))
    took = {row["step"]: row["took_s"] for row in peers.read(notes) if row["rank"] == 0}
    copies = [row for row in peers.read(notes.with_suffix(".commits")) if row["rank"] == 0 and row["step"]]
    intervals = range(1, 4)
    calm_s = statistics.mean(
        took[step]
        for nth in intervals
        for step in range(STALL_INTERVAL * nth + 15, STALL_INTERVAL * (nth + 1))
    )
    slowed_s = statistics.mean(
        sum(took[STALL_INTERVAL * nth + after] - calm_s for after in range(15)) for nth in intervals
    )
    copy_s = statistics.median(row["took_s"] for row in copies)
    sys.stderr.write(f"step {calm_s:.4f} s, copy {copy_s:.4f} s, slowed down in all {slowed_s:.4f} s\n")
    return {"ours": (copy_s + max(slowed_s, 0.0)) / (STALL_INTERVAL * calm_s)}


def torchrun(settings: Settings, folder: Path) -> dict[str, float]:
    """Measure images a second between the tenth and the last step, the sides in turns."""
    rates: dict[str, list[float]] = {"ours": [], "peer": []}
    for nth in range(ROUNDS):
        ours, plain = folder / f"ours-{nth}", folder / f"plain-{nth}"
        config = replace(CONFIG, checkpoint_every_steps=STALL_INTERVAL)
        train_ours(settings, f"torchrun-{nth}", ours, config, peers.BATCH * peers.STEPS)
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
        script = ["-m", "jobs.bench.train_peers", str(plain)]
        env = {**os.environ, "OMP_NUM_THREADS": "1"}
        subprocess.run([*command, *script], env=env, check=True, stdout=subprocess.DEVNULL)
        for side, notes in (("ours", ours), ("peer", plain)):
            ends = [row["ended_at"] for row in peers.read(notes) if row["rank"] == 0]
            rates[side].append(peers.BATCH * (len(ends) - 11) / (ends[-1] - ends[10]))
    sys.stderr.write(f"images a second: {rates}\n")
    return {side: statistics.median(values) for side, values in rates.items()}


WORK: dict[str, Callable[[Settings, Path], dict[str, float]]] = {
    "recovery": recovery,
    "stall": stall,
    "torchrun": torchrun,
}


def inside(what: str) -> dict[str, float]:
    """Do the work of both sides on the platform whose environment this process has."""
    settings = Settings.from_env()
    entry.join_ray(settings.ray_address)
    with tempfile.TemporaryDirectory(prefix="bench-train-") as folder:
        return WORK[what](settings, Path(folder))


def measure(what: str) -> dict[str, Any]:
    with own_platform() as platform:
        return platform.run("jobs.bench.train", what)


def train_recovery() -> Figure:
    """Compare the time from the kill of a worker to the first step that is new."""
    report = measure("recovery")
    peer = "stock Ray Train: DDP, torch.save and report each 10 steps, max_failures=3"
    return Figure.of("train_recovery", report["ours"], report["peer"], peer, "s, median")


def checkpoint_stall() -> Figure:
    """Measure the share of 50 steps' time that a checkpoint takes: the copy, and the steps slowed by the upload."""
    report = measure("stall")
    return Figure.of("checkpoint_stall", report["ours"], 1.0, "no checkpoint", "share of step time")


def train_vs_torchrun() -> Figure:
    report = measure("torchrun")
    peer = "a plain torchrun DDP loop, same model, batches and tensors in memory"
    return Figure.of("train_vs_torchrun", report["ours"], report["peer"], peer, "images/s, median")


BENCHMARKS = (train_recovery, checkpoint_stall, train_vs_torchrun)

if __name__ == "__main__":
    entry.run("bench_train", lambda: inside(sys.argv[1]))
