"""Kill training runs, each once at a random step, and show that all of them end with the same bits.

`python -m jobs.kill_train --kills 20` starts a platform of its own, trains a tiny ViT undisturbed, then trains it again
and again under other names while a worker (every fourth time the driver, whose command is then run again) gets SIGKILL.
The hash is over the last checkpoint: weights, optimizer state, position and metric history.
"""

import hashlib
import json
import os
import random
import secrets
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil

from cluster.embedded.home import Home
from cluster.embedded.process import command_line
from cluster.objects import ObjectStore, arrow_filesystem
from cluster.settings import Settings
from jobs.runtime import entry
from jobs.runtime.job_process import JobProcess
from jobs.runtime.throwaway_platform import OwnPlatform, own_platform
from train.checkpoints.state import PROGRESS_NAME
from train.checkpoints.store import COMMIT_NAME, CheckpointStore, mark_of
from train.runs import run_store

WORKER = "RayTrainWorker"
"""What Ray calls the processes of training workers."""
TINY = {
    "model.name": "vit_tiny_patch16_224",
    "model.kwargs": {"depth": 2},
    "model.drop_path_rate": 0.2,
    "epochs": 12,
    "batch_size": 16,
    "checkpoint_every_steps": 5,
}


@dataclass(frozen=True, kw_only=True)
class Arguments:
    kills: int = 20
    """How many runs are killed, each once."""
    seed: int = 0
    """Seed of the victims and the steps."""
    here: bool = False
    """On the platform of the environment, where the runs and their model versions stay, and not on one of its own."""

    def __post_init__(self) -> None:
        if self.kills < 1:
            raise ValueError(f"--kills must be at least 1, got {self.kills}")


@dataclass(frozen=True, kw_only=True)
class Ground(OwnPlatform):
    """The platform that the runs are on, and the dataset that they learn."""

    merge_errors: bool = True
    dataset_version: str = ""
    options: Mapping[str, Any] = field(default_factory=lambda: dict(TINY))
    """Of the training, by name."""

    def workers(self) -> list[psutil.Process]:
        """List the training workers that are alive, the youngest first."""
        workers = [process for process in self.processes("ray") if WORKER in command_line(process)]
        return sorted(workers, key=lambda process: process.create_time(), reverse=True)


@dataclass(frozen=True, kw_only=True)
class Ending:
    """What a run left."""

    digest: str
    resumed: bool
    killed_at: int | None = None
    """The last step that was seen before the kill."""
    newest_checkpoint: int | None = None
    """The newest that was committed then."""
    victim: str = "nobody"


def train(ground: Ground, run: str) -> JobProcess:
    options = [f"--train.{name}={_spelled(value)}" for name, value in ground.options.items()]
    version = ["--dataset_version", ground.dataset_version]
    return JobProcess(ground.start("jobs.train", "--recipe", "smoke", "--run", run, *version, *options))


def _spelled(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def undisturbed(ground: Ground, run: str) -> tuple[int, str]:
    """Train without a kill; returns steps and digest."""
    calm = train(ground, run)
    calm.report()
    return calm.steps, digest(ground, run)


def killed(ground: Ground, run: str, victim: str, step: int) -> Ending:
    """Train, kill at the step or soon after, and where the driver died run its command again.

    Raises:
        JobError: the run ended before it could be killed.
    """
    job = train(ground, run)
    if not job.wait_for_step(step):
        raise entry.JobError(f"{run} ended before step {step}: {' | '.join(job.lines[-3:])}")
    committed = checkpoints(ground, run).committed()
    if victim == "driver":
        job.process.kill()
    else:
        ground.workers()[random.Random(step).randrange(2)].kill()
    at = job.step
    job.reader.join()
    report = train(ground, run).report() if victim == "driver" else job.report()
    return Ending(
        digest=digest(ground, run),
        resumed=report["resumed"],
        killed_at=at,
        newest_checkpoint=mark_of(committed[0]).step if committed else None,
        victim=victim,
    )


def checkpoints(ground: Ground, run: str) -> CheckpointStore:
    store = ObjectStore(ground.settings)
    key = f"runs/{run}/g001/checkpoints"
    return CheckpointStore(arrow_filesystem(ground.settings), store.path(run_store.BUCKET, key))


def digest(ground: Ground, run: str) -> str:
    """Hash all files of the last checkpoint, read back and verified, without the run's own name in one of them."""
    store = checkpoints(ground, run)
    last = store.committed()[0]
    contents: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        store.fetch(last, Path(folder))
        for file in Path(folder).iterdir():
            if file.name == PROGRESS_NAME:
                contents[file.name] = json.loads(file.read_text()) | {"about": None}
            elif file.name != COMMIT_NAME:
                contents[file.name] = hashlib.sha256(file.read_bytes()).hexdigest()
    return hashlib.sha256(json.dumps(contents, sort_keys=True).encode()).hexdigest()[:16]


def dataset(ground: Ground) -> str:
    """Make a small dataset version of synthetic X-rays."""
    images = ("--source", "synthetic", "--synthetic.images", "300", "--synthetic.seed", "5")
    sources = ground.run("jobs.ingest", *images)["sources"]
    options = ("--recipe", "smoke", "--etl.pixels.side", "32", "--etl.sources", json.dumps(sources))
    version: str = ground.run("jobs.etl", *options)["dataset_version"]
    return version


def victims(kills: int, steps: int, seed: int) -> list[tuple[str, int]]:
    """Draw the victim of each run and the step from which it is killed: the driver in the second of each four."""
    chance = random.Random(seed)
    return [("driver" if nth % 4 == 1 else "worker", chance.randrange(1, steps - 1)) for nth in range(kills)]


@contextmanager
def ground_of(arguments: Arguments) -> Iterator[Ground]:
    if arguments.here:
        home, settings = Home.from_env(os.environ), Settings.from_env()
        yield Ground(home=home, env=dict(os.environ), settings=settings)
        return
    with own_platform() as platform:
        yield Ground(home=platform.home, env=platform.env, settings=platform.settings)


def work(arguments: Arguments) -> dict[str, Any]:
    name = f"kill-{secrets.token_hex(3)}"
    with ground_of(arguments) as bare:
        ground = replace(bare, dataset_version=dataset(bare))
        return kills(ground, name, arguments.kills, arguments.seed)


def kills(ground: Ground, name: str, count: int, seed: int) -> dict[str, Any]:
    """Train once undisturbed and `count` times killed.

    Raises:
        JobError: one of them ended with other bits.
    """
    steps, expected = undisturbed(ground, f"{name}-undisturbed")
    _say("undisturbed", {"steps": steps, "digest": expected})
    endings = []
    for nth, (victim, step) in enumerate(victims(count, steps, seed)):
        endings.append(killed(ground, f"{name}-{nth + 1:03d}", victim, step))
        _say(f"run {nth + 1} of {count}", asdict(endings[-1]))
    wrong = [nth + 1 for nth, ending in enumerate(endings) if ending.digest != expected]
    if wrong:
        raise entry.JobError(f"runs {wrong} ended with other bits than the undisturbed one")
    drivers = sum(ending.victim == "driver" for ending in endings)
    return {"kills": count, "drivers": drivers, "identical": len(endings), "digest": expected}


def _say(what: str, values: Mapping[str, Any]) -> None:
    sys.stdout.write(f"{what}: {json.dumps(values)}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    entry.main("kill_train", Arguments, work)
