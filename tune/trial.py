"""One trial: an ordinary training run whose epochs Tune hears of, and which ends with an epoch when Tune says so.

Tune's side is `TrialDriver`, an actor that takes no processor; in a thread of it runs what `jobs.train` runs too
(`train.trainer.fit_on_workers`), with the run's own checkpoints. Whatever is killed, the trial goes on from them.
"""

import json
import logging
import secrets
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import ray
import ray.tune

from cluster.expected import ExpectedError
from cluster.objects import ObjectStore
from cluster.settings import Settings
from data.versions import manifest
from train import runs, trainer
from train.branch import branch
from train.checkpoint_store import CheckpointStore
from train.config import TrainConfig
from train.loop import Place, SoFar
from tune import space as spaces
from tune.epoch_gate import Event

TRIAL = "trial"
"""Under this name Tune's configuration of a trial has `Assignment` as plain values."""
POINTER = "pointer.json"

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """Which trial an actor of Tune's drives."""

    number: int
    run: str
    """Name of the training run."""
    known_epoch: int
    """Rows up to this one are no news."""
    mlflow_run_id: str | None
    settings: spaces.Settings


@dataclass(frozen=True, kw_only=True)
class Origin:
    """A checkpoint of a trial, as Tune keeps it: only where it is."""

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
    """Which Tune insists on hearing of, also from a trial that has none."""
    train: Callable[[Assignment, Origin | None, Callable[[SoFar], bool]], dict[str, float]]
    """Trains a trial to its end; returns the row of its last epoch.

    Raises what `trainer.fit_on_workers` does."""
    pointer: Callable[[Assignment, int], Origin] | None = None
    """Where the checkpoint at the end of an epoch is; None where no trial begins with another one's."""


class TrialDriver(ray.tune.Trainable):
    def setup(self, config: dict[str, Any], environment: TrialEnvironment) -> None:
        self._environment = environment
        self._assignment = Assignment(**config[TRIAL])
        self._key = f"{self._assignment.number}-{secrets.token_hex(4)}"
        self._thread: threading.Thread | None = None
        self._origin: Origin | None = None
        self._row: Event = {}

    def step(self) -> Event:
        """The next epoch's row, once it is there; with the last one, how the trial ended."""
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
        """Tune wants no more of it: the workers end with the epoch that they are in, and their processors are free."""
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
        """In the thread: train, and tell the gate how it ended."""
        asked = _EpochReporter(gate=self._environment.gate, key=self._key)
        try:
            last = self._environment.train(self._assignment, self._origin, asked)
            ending: Event = {**last, "row": last, "ending": "complete"}
        except trainer.HaltedError:
            ending = {"ending": "halted"}
        except trainer.DivergedError as error:
            ending = {"ending": "failed", "why": str(error)}
        except (ExpectedError, ValueError, OSError) as error:
            ending = {"ending": "broke", "why": " ".join(str(error).split())}
        except Exception as error:
            logger.exception("trial %d", self._assignment.number)
            ending = {"ending": "broke", "why": f"{type(error).__name__}: {' '.join(str(error).split())}"}
        ray.get(self._environment.gate.end.remote(self._key, ending))


@dataclass(frozen=True, kw_only=True)
class _EpochReporter:
    """What rank 0 asks after each epoch."""

    gate: Any
    key: str

    def __call__(self, so_far: SoFar) -> bool:
        goes_on: bool = ray.get(self.gate.tell.remote(self.key, so_far.attempt, so_far.cpu_s, so_far.history))
        return goes_on


@dataclass(frozen=True, kw_only=True)
class Runs:
    """Trials as training runs on the platform: `TrialEnvironment.train` and `TrialEnvironment.pointer`."""

    settings: Settings
    base: TrainConfig
    dataset_version: str

    def __call__(
        self, assignment: Assignment, origin: Origin | None, goes_on: Callable[[SoFar], bool]
    ) -> dict[str, float]:
        config = spaces.applied(self.base, assignment.settings)
        store = ObjectStore(self.settings)
        run, _ = runs.begin(store, assignment.run, config, self.dataset_version, fresh=False)
        done = runs.trained(store, run)
        if done is None:
            start = trainer.first_weights(
                self.settings, store, config, manifest(store, self.dataset_version), run
            )
            place = trainer.place_of(self.settings, store, config, run, assignment.mlflow_run_id, start)
            if origin is not None:
                self._begin_with(store, origin, run, place.store)
            place = Place(**{**vars(place), "goes_on": goes_on})
            done = trainer.keep(
                store, config, run, place.store, trainer.fit_on_workers(config, place, run.key)
            )
        return done.history[-1]

    def pointer(self, assignment: Assignment, epoch: int) -> Origin:
        config = spaces.applied(self.base, assignment.settings)
        run, _ = runs.begin(
            ObjectStore(self.settings), assignment.run, config, self.dataset_version, fresh=False
        )
        return Origin(run=run.name, generation=run.generation, fingerprint=run.fingerprint, epoch=epoch)

    def _begin_with(self, store: ObjectStore, origin: Origin, run: runs.Run, own: CheckpointStore) -> None:
        """Copy the checkpoint that the trial is to go on from, unless that was done before or it is its own."""
        source = runs.Run(
            name=origin.run,
            generation=origin.generation,
            fingerprint=origin.fingerprint,
            dataset_version=self.dataset_version,
        )
        if source != run and not own.committed():
            branch(trainer.checkpoints_of(self.settings, store, source), origin.epoch, own, run.key)
