"""The record of a sweep in the object store, from which a rerun goes on: the only truth about what was tried.

`sweeps/NAME/sweep.json` in the bucket `checkpoints` names the current generation (`--fresh` begins the next one;
nothing is deleted). Below `sweeps/NAME/gNNN/` lies one object a trial, written after each of its epochs, by the
driver alone. The trials' checkpoints are those of ordinary runs (`train.runs.run_store`). Knows neither Ray nor
torch nor Optuna.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from cluster.objects import ObjectStore
from train.runs.run_store import BUCKET, NAME, RunError

State = Literal["unfinished", "complete", "stopped", "failed"]
STATES: tuple[State, ...] = ("complete", "stopped", "failed", "unfinished")
"""Trained to its last epoch; ended early because others were better; diverged; to go on when the sweep does."""
Row = dict[str, float]


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What is known of one trial."""

    number: int
    run: str
    """Name of its training run."""
    settings: dict[str, Any]
    """Its values of the space, by dotted name; with pbt, the current ones."""
    state: State = "unfinished"
    why: str = ""
    """Of a trial that failed or broke."""
    rows: list[Row] = field(default_factory=list)
    """One an epoch, each with the number that it has among all rows of the sweep, `nth`."""
    cpu_s: dict[str, float] = field(default_factory=dict)
    """CPU time of its workers, by attempt."""
    mlflow_run_id: str | None = None
    began: dict[str, Any] = field(default_factory=dict)
    """pbt: the settings that it began with, where it has others now."""
    left: list[str] = field(default_factory=list)
    """pbt: the training runs that it had before this one."""

    def value(self, metric: str) -> float | None:
        """Return the metric after the last epoch so far."""
        return self.rows[-1][metric] if self.rows else None

    @property
    def epochs(self) -> int:
        return int(self.rows[-1]["epoch"]) if self.rows else 0

    def with_row(self, row: Row) -> "Trial":
        """Replace what was known of this and later epochs with an epoch's row."""
        earlier = [known for known in self.rows if known["epoch"] < row["epoch"]]
        return replace(self, rows=[*earlier, row])


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """One generation of one named sweep."""

    name: str
    generation: int
    fingerprint: str
    dataset_version: str

    @property
    def folder(self) -> str:
        """Key prefix in the bucket `checkpoints`."""
        return f"sweeps/{self.name}/g{self.generation:03d}"

    @property
    def key(self) -> str:
        """Identity in MLflow."""
        return f"sweep/{self.name}/g{self.generation:03d}/{self.dataset_version}/{self.fingerprint}"

    def run(self, number: int) -> str:
        """Name of a trial's training run."""
        return f"{self.name}-g{self.generation:03d}-t{number:03d}"


def fingerprint(identity: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]


def begin(
    store: ObjectStore, name: str, fingerprint: str, dataset_version: str, *, fresh: bool
) -> tuple[Sweep, bool]:
    """Open or begin a sweep; returns it, and whether it was begun before.

    Raises:
        RunError: the name cannot be used, or stands for a sweep of other settings or data.
    """
    if not NAME.fullmatch(name) or len(name) > 80:
        raise RunError(
            f"a sweep's name has at most 80 letters, digits, dots, dashes and underscores, got {name!r}"
        )
    wanted = {"fingerprint": fingerprint, "dataset_version": dataset_version}
    key = f"sweeps/{name}/sweep.json"
    try:
        before = Sweep(**store.get_json(BUCKET, key))
    except FileNotFoundError:
        before = None
    if before is not None and not fresh:
        if before != Sweep(name=name, generation=before.generation, **wanted):
            raise RunError(
                f"sweep {name} has dataset {before.dataset_version} and settings {before.fingerprint}, asked for "
                f"are {dataset_version} and {fingerprint}: take another --run name, or --fresh"
            )
        return before, True
    sweep = Sweep(name=name, generation=1 if before is None else before.generation + 1, **wanted)
    store.put_json(BUCKET, key, asdict(sweep))
    return sweep, False


class SweepStore:
    """A sweep's trials, in memory and in the object store."""

    def __init__(self, store: ObjectStore, sweep: Sweep) -> None:
        self.store = store
        self.sweep = sweep
        keys = store.keys(BUCKET, f"{sweep.folder}/trials/")
        trials = [Trial(**store.get_json(BUCKET, key)) for key in keys]
        self._trials = {trial.number: trial for trial in trials}

    @property
    def trials(self) -> list[Trial]:
        """By number."""
        return [self._trials[number] for number in sorted(self._trials)]

    def trial(self, number: int) -> Trial:
        return self._trials[number]

    def put(self, trial: Trial) -> None:
        """Store a trial before anything follows from it."""
        self.store.put_json(BUCKET, f"{self.sweep.folder}/trials/{trial.number:04d}.json", asdict(trial))
        self._trials[trial.number] = trial

    @property
    def next_nth(self) -> int:
        """The number of the next row."""
        return 1 + max((int(row["nth"]) for trial in self.trials for row in trial.rows), default=-1)

    @property
    def cpu_minutes(self) -> float:
        return cpu_minutes(self.trials)


def cpu_minutes(trials: Iterable[Trial]) -> float:
    """Sum the CPU minutes of the workers of all attempts, as of their last epochs."""
    return sum(seconds for trial in trials for seconds in trial.cpu_s.values()) / 60


def count(trials: Sequence[Trial]) -> dict[str, int]:
    """Count trials by state."""
    return {state: sum(trial.state == state for trial in trials) for state in STATES}


def best(trials: Sequence[Trial], metric: str, mode: str) -> Trial | None:
    """Return the best trial of those trained to the end; where there is none, of those that came farthest.

    A trial's value is that after its last epoch, whose weights it has, not the best on the way.
    """
    tried = [trial for trial in trials if trial.rows and trial.state != "failed"]
    if not tried:
        return None
    complete = [trial for trial in tried if trial.state == "complete"]
    farthest = max(trial.epochs for trial in tried)
    candidates = complete or [trial for trial in tried if trial.epochs == farthest]
    sign = 1 if mode == "max" else -1
    return max(candidates, key=lambda trial: (sign * trial.rows[-1][metric], -trial.number))


def superseded(trials: Sequence[Trial], metric: str, mode: str) -> list[str]:
    """Return the training runs whose weights neither a trial nor a winner can still need."""
    over = [trial for trial in trials if trial.state != "unfinished"]
    winner = best(over, metric, mode)
    return [run for trial in trials for run in trial.left] + [trial.run for trial in over if trial != winner]
