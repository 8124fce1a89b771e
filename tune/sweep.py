"""A sweep from its first trial to the winner's recipe: the driver's side.

`sweep` can be called again at any time with the same arguments: trials that are over are not repeated, those that are
not go on from their checkpoints, and a finished sweep returns at once. The caller has joined the Ray cluster.
"""

import logging
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ray

from cluster.expected import ExpectedError
from cluster.objects import ObjectStore
from cluster.settings import Settings
from data.dataset.versions import manifest
from train.config import TrainConfig
from train.runs import run_store, trainer
from train.runs.cluster_lock import claim
from tune import figures, recipe_file, schedulers, sweep_store
from tune import space as spaces
from tune.epoch_gate import EpochGate
from tune.mlflow_trials import MlflowTrials
from tune.sweep_driver import SweepDriver, SweepSpec
from tune.sweep_store import SweepStore, Trial
from tune.trial import Runs, TrialEnvironment
from tune.tuner import room_now, run_trials

RECIPE_NAME = "recipe.yaml"
logger = logging.getLogger(__name__)


class SweepError(ExpectedError):
    """The sweep ended without a winner; the message says why in one line."""


@dataclass(frozen=True, kw_only=True)
class SweepRequest:
    """A sweep as its user wants it."""

    spec: SweepSpec
    dataset_version: str
    name: str
    recipe: str = "demo"
    """The named recipe that `spec.train` came from; kept with the winner."""
    fresh: bool = False
    git_commit: str = "unknown"


@dataclass(frozen=True, kw_only=True)
class SweepOutcome:
    run: str
    mlflow_run_id: str
    resumed: bool
    """Whether the sweep had been begun before."""
    trials: dict[str, int]
    """How many, by state."""
    trained: int
    """How many of them trained an epoch in this call."""
    broke: dict[int, str]
    """Trials that could not go on for a reason outside of them, and why; they do when the sweep is run again."""
    best: Trial
    value: float
    cpu_minutes: float
    recipe: str
    """The winner as YAML."""
    recipe_key: str
    """Where it lies in the bucket `checkpoints`."""
    pictures: dict[str, bytes]
    importance: dict[str, float] | str
    """By setting, or why there is none."""


def sweep(settings: Settings, request: SweepRequest) -> SweepOutcome:
    """Run the sweep's trials and write the winner's recipe.

    Raises:
        SpaceError, SweepConfigError, VersionError, TrainDataError, RunError, TrackingError, CapacityError: before
            anything runs.
        SweepError: no trial has a value.
        ClaimedError: another job runs this sweep.
    """
    store, spec = ObjectStore(settings), request.spec
    _check(request, manifest(store, request.dataset_version))
    begun, resumed = sweep_store.begin(
        store, request.name, fingerprint(spec), request.dataset_version, fresh=request.fresh
    )
    provenance = {"dataset_version": request.dataset_version, "git_commit": request.git_commit}
    with claim(f"sweep {begun.key}"):
        trial_store = SweepStore(store, begun)
        mlflow_trials = MlflowTrials.open(settings.mlflow_tracking_uri, begun, _params(spec), provenance)
        driver = _run(settings, request, trial_store, mlflow_trials)
        return _conclude(settings, request, driver, mlflow_trials, resumed=resumed)


def fingerprint(spec: SweepSpec) -> str:
    """Hash everything that decides which trials there are and how they are judged."""
    return sweep_store.fingerprint(
        {
            "train": spec.train.fingerprint,
            "space": spaces.described(spec.space),
            "seed": spec.seed,
            **spec.config.identity(),
        }
    )


def default_name(spec: SweepSpec, dataset_version: str) -> str:
    """Return the name of a sweep that is not named: the same search over the same data has the same name."""
    return f"sweep-{dataset_version[:8]}-{fingerprint(spec)[:8]}"


def _check(request: SweepRequest, described: dict[str, Any]) -> None:
    """Refuse in seconds what every trial would refuse after its start."""
    spec = request.spec
    spaces.check(spec.train, spec.space)
    if spec.config.scheduler == "pbt":
        schedulers.pbt(spec.config, spec.space, spec.seed)
    names = spec.space.get("model.name")
    for name in names.ends if names is not None else [spec.train.model.name]:
        model = replace(spec.train.model, name=name)
        trainer.check(replace(spec.train, model=model), described)


def _params(spec: SweepSpec) -> dict[str, Any]:
    return {
        **spec.config.identity(),
        "seed": spec.seed,
        **{f"space.{name}": given for name, given in spaces.described(spec.space).items()},
    }


def _run(
    settings: Settings, request: SweepRequest, trial_store: SweepStore, mlflow_trials: MlflowTrials
) -> SweepDriver:
    """Run trials until there are enough or the budget is spent."""
    spec = request.spec
    train = _kept_for_others(spec)
    gate = ray.remote(EpochGate).options(num_cpus=0).remote()
    driver = SweepDriver(trial_store, spec, mlflow_trials, close=lambda: ray.get(gate.close.remote()))
    work = Runs(settings=settings, base=train, dataset_version=request.dataset_version)
    pointer = work.pointer if spec.config.scheduler == "pbt" else None
    environment = TrialEnvironment(
        gate=gate, epochs=train.epochs, metric=spec.config.metric, train=work, pointer=pointer
    )
    try:
        if not driver.done:
            run_trials(driver, environment, room_now(train))
    finally:
        ray.kill(gate)
    return driver


def _kept_for_others(spec: SweepSpec) -> TrainConfig:
    """Keep the checkpoint at the end of each epoch with pbt, since another trial may begin with it."""
    return replace(spec.train, keep_every_epochs=1) if spec.config.scheduler == "pbt" else spec.train


def _conclude(
    settings: Settings,
    request: SweepRequest,
    driver: SweepDriver,
    mlflow_trials: MlflowTrials,
    *,
    resumed: bool,
) -> SweepOutcome:
    """Bring MLflow up to date, write the winner and the pictures, and drop what only losers need."""
    spec, trial_store = request.spec, driver.trial_store
    trials = trial_store.trials
    for trial in trials:
        config = spaces.applied(spec.train, trial.settings)
        run, _ = run_store.begin(trial_store.store, trial.run, config, request.dataset_version, fresh=False)
        run_id = mlflow_trials.catch_up(trial, config, run.key)
        if run_id != trial.mlflow_run_id:
            trial_store.put(replace(trial, mlflow_run_id=run_id))
    driver.drop_weights()
    best = sweep_store.best(trials, spec.config.metric, spec.config.mode)
    if best is None:
        mlflow_trials.fail()
        raise SweepError(_why_none(trials))
    value = best.rows[-1][spec.config.metric]
    text = _recipe(request, best, value, trials)
    recipe_key = f"{trial_store.sweep.folder}/{RECIPE_NAME}"
    trial_store.store.put(run_store.BUCKET, recipe_key, text.encode())
    pictures = figures.figures(trials, spec.space, spec.config, trial_store.sweep.name)
    with tempfile.TemporaryDirectory() as folder:
        files = {**pictures, RECIPE_NAME: text.encode()}
        for name, blob in files.items():
            Path(folder, name).write_bytes(blob)
        best_figures = {f"best_{spec.config.metric}": value, "cpu_minutes": trial_store.cpu_minutes}
        mlflow_trials.finish(best_figures, [Path(folder, name) for name in files])
    return SweepOutcome(
        run=trial_store.sweep.name,
        mlflow_run_id=mlflow_trials.parent,
        resumed=resumed,
        trials=sweep_store.count(trials),
        trained=len(driver.touched),
        broke={trial.number: trial.why for trial in trials if trial.state == "unfinished" and trial.why},
        best=best,
        value=value,
        cpu_minutes=round(trial_store.cpu_minutes, 2),
        recipe=text,
        recipe_key=recipe_key,
        pictures=pictures,
        importance=_importance(trials, spec),
    )


def _recipe(request: SweepRequest, best: Trial, value: float, trials: Sequence[Trial]) -> str:
    metric = request.spec.config.metric
    tried = f"The best of {len(trials)} trials of sweep {request.name}"
    return recipe_file.text(
        best,
        spaces.applied(request.spec.train, best.settings),
        dataset_version=request.dataset_version,
        recipe=request.recipe,
        summary=f"{tried}: {metric} {value:.4f} after epoch {best.epochs}",
    )


def _importance(trials: Sequence[Trial], spec: SweepSpec) -> dict[str, float] | str:
    shares = figures.importance(trials, spec.space, spec.config)
    if shares is not None:
        return {name: round(share, 3) for name, share in shares.items()}
    if spec.config.scheduler == "pbt":
        return "none: pbt changes settings on the way"
    return f"none: it takes at least {figures.MIN_TRIALS} trials that ended, with values that differ"


def _why_none(trials: Sequence[Trial]) -> str:
    failed = [trial for trial in trials if trial.state == "failed"]
    broke = [trial for trial in trials if trial.why and trial not in failed]
    if failed and len(failed) == len(trials):
        return f"all {len(trials)} trials failed; trial {failed[0].number}: {failed[0].why}"
    if broke:
        return f"no trial finished an epoch; trial {broke[0].number}: {broke[0].why}"
    return "no trial finished an epoch within the budget: raise --budget_cpu_minutes, and the sweep goes on"
