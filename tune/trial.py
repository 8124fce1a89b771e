"""One trial: an ordinary training run that reports its epochs to Ray Tune and stops at an epoch's end when Tune asks.

`TrialDriver` is Tune's actor and takes no processor. A thread of it trains as `jobs.train` does
(`train.runs.workers.fit_on_workers`), with the run's own checkpoints, from which a killed trial goes on.
"""

import json
import logging
import secrets
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import ray
import ray.tune

from cluster.expected import ExpectedError
from cluster.objects import ObjectStore
from cluster.settings import Settings
from data.dataset.versions import manifest
from train.checkpoints.fork import branch
from train.checkpoints.store import CheckpointStore
from train.config import TrainConfig
from train.runs import run_store, trainer, workers
from train.runs.worker import EpochReport
from tune import space as spaces
from tune.epoch_gate import Event

TRIAL = "trial"
"""Key of Tune's configuration of a trial below which `Assignment` is, as plain values."""
POINTER = "pointer.json"

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """The trial that an actor of Tune drives."""

    number: int
    run: str
    """Name of the training run."""
    known_epoch: int
    """Rows up to this one are known already."""
    mlflow_run_id: str | None
    settings: spaces.Settings


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Place of a checkpoint of a trial; Tune's own checkpoints hold nothing else."""

    run: str
    generation: int
    fingerprint: str
    epoch: int


@dataclass(frozen=True, kw_only=True)
class TrialEnvironment:
    """What all trials have in common; travels through Ray's object store, as it holds secrets."""

    gate: Any
    """Handle of the actor `tune.epoch_gate.EpochGate`."""
    epochs: int
    metric: str
    """The metric that Tune requires in each result, also in that of a trial without one."""
    train: Callable[[Assignment, Origin | None, Callable[[EpochReport], bool]], dict[str, float]]
    """Train a trial to its end and return the row of its last epoch.

    Raises what `train.runs.workers.fit_on_workers` does."""
    pointer: Callable[[Assignment, int], Origin] | None = None
    """Return the place of the checkpoint at the end of an epoch; None if trials never start from others."""


class TrialDriver(ray.tune.Trainable):
    def setup(self, config: dict[str, Any], environment: TrialEnvironment) -> None:
        self._environment = environment
        self._assignment = Assignment(**config[TRIAL])
        self._key = f"{self._assignment.number}-{secrets.token_hex(4)}"
        self._thread: threading.Thread | None = None
        self._origin: Origin | None = None
        self._row: Event = {}

    def step(self) -> Event:
        """Wait for the next epoch's row; the last one says how the trial ended, too."""
        if self._thread is None:
            self._begin()
        event = self._next()
        if "ending" not in event:
            self._row = event
            if event["epoch"] < self._environment.epochs:
                return event
            event = self._next()
        return {**self._row, **event, "done": True}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        assert self._environment.pointer is not None
        pointer = self._environment.pointer(self._assignment, int(self._row["epoch"]))
        Path(checkpoint_dir, POINTER).write_text(json.dumps(asdict(pointer)))

    def load_checkpoint(self, checkpoint: str | None) -> None:
        assert checkpoint is not None
        self._origin = Origin(**json.loads(Path(checkpoint, POINTER).read_text()))

    def cleanup(self) -> None:
        """End the workers with the epoch that they are in, which frees their processors."""
        if self._thread is not None:
            ray.get(self._environment.gate.leave.remote(self._key))
            self._thread.join()

    def _begin(self) -> None:
        known = self._assignment.known_epoch if self._origin is None else self._origin.epoch
        self._row = {"epoch": known, self._environment.metric: float("nan")}
        ray.get(self._environment.gate.open.remote(self._key, known))
        self._thread = threading.Thread(
            target=self._train, name=f"trial-{self._assignment.number}", daemon=True
        )
        self._thread.start()

    def _next(self) -> Event:
        event: Event = ray.get(self._environment.gate.next.remote(self._key))
        return event

    def _train(self) -> None:
        """Train in the thread, and report to the gate how it ended."""
        reporter = _EpochReporter(gate=self._environment.gate, key=self._key)
        try:
            last = self._environment.train(self._assignment, self._origin, reporter)
            ending: Event = {**last, "row": last, "ending": "complete"}
        except workers.PausedError:
            ending = {"ending": "halted"}
        except workers.DivergedError as error:
            ending = {"ending": "failed", "why": str(error)}
        except (ExpectedError, ValueError, OSError) as error:
            ending = {"ending": "broke", "why": " ".join(str(error).split())}
        except Exception as error:
            logger.exception("trial %d", self._assignment.number)
            ending = {"ending": "broke", "why": f"{type(error).__name__}: {' '.join(str(error).split())}"}
        ray.get(self._environment.gate.end.remote(self._key, ending))


@dataclass(frozen=True, kw_only=True)
class _EpochReporter:
    """Reports each epoch of rank 0 to the gate; returns whether training goes on."""

    gate: Any
    key: str

    def __call__(self, report: EpochReport) -> bool:
        should_continue: bool = ray.get(
            self.gate.tell.remote(self.key, report.attempt, report.cpu_s, report.history)
        )
        return should_continue


@dataclass(frozen=True, kw_only=True)
class Runs:
    """Trials as training runs on the platform: `TrialEnvironment.train` and `TrialEnvironment.pointer`."""

    settings: Settings
    base: TrainConfig
    dataset_version: str

    def __call__(
        self, assignment: Assignment, origin: Origin | None, should_continue: Callable[[EpochReport], bool]
    ) -> dict[str, float]:
        config = spaces.applied(self.base, assignment.settings)
        store = ObjectStore(self.settings)
        run, _ = run_store.begin(store, assignment.run, config, self.dataset_version, fresh=False)
        trained = run_store.trained(store, run)
        if trained is None:
            start = trainer.first_weights(
                self.settings, store, config, manifest(store, self.dataset_version), run
            )
            inputs = trainer.inputs_of(self.settings, store, config, run, assignment.mlflow_run_id, start)
            if origin is not None:
                self._begin_with(store, origin, run, inputs.store)
            trained = workers.train_run(store, config, run, replace(inputs, should_continue=should_continue))
        return trained.history[-1]

    def pointer(self, assignment: Assignment, epoch: int) -> Origin:
        config = spaces.applied(self.base, assignment.settings)
        run, _ = run_store.begin(
            ObjectStore(self.settings), assignment.run, config, self.dataset_version, fresh=False
        )
        return Origin(run=run.name, generation=run.generation, fingerprint=run.fingerprint, epoch=epoch)

    def _begin_with(
        self, store: ObjectStore, origin: Origin, run: run_store.Run, own: CheckpointStore
    ) -> None:
        """Copy the checkpoint that the trial starts from, unless it is its own or was copied before."""
        source = run_store.Run(
            name=origin.run,
            generation=origin.generation,
            fingerprint=origin.fingerprint,
            dataset_version=self.dataset_version,
        )
        if source != run and not own.committed():
            branch(workers.checkpoints_of(self.settings, store, source), origin.epoch, own, run.key)
