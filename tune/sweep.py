"""A sweep from its first trial to the winner's recipe: the driver's side.

`sweep` can be called again at any time with the same arguments: trials that are over are not repeated, those that are
not go on from their checkpoints, and a sweep that is done is told at once. The caller has joined the Ray cluster.
"""

import logging
import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ray
import ray.tune
from ray.tune.search.basic_variant import BasicVariantGenerator

from cluster.expected import ExpectedError
from cluster.objects import ObjectStore
from cluster.settings import Settings
from data.versions import manifest
from train import runs, trainer
from train.claim import claim
from train.config import TrainConfig
from train.scratch import scratch
from tune import figures, recipe_file, schedulers, sweep_store
from tune import space as spaces
from tune.capacity import Node, concurrent, room
from tune.epoch_gate import Desk
from tune.mlflow_trials import Nested
from tune.sweep_driver import Keeper, Question, Suggester
from tune.sweep_store import Ledger, Trial
from tune.trial import TRIAL, Ground, Runs, TrialDriver

RECIPE_NAME = "recipe.yaml"
NODE_SHARES = 10_000
"""Ray counts resources in ten-thousandths."""
PATIENCE_S = 60.0
"""How long a sweep waits until a trial has room beside what runs on the cluster already."""
RAY_TUNE = {"TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1", "TUNE_MAX_PENDING_TRIALS_PG": "1"}
"""The ledger and MLflow have the results; and a trial is not asked for before there is room for it."""

logger = logging.getLogger(__name__)


class SweepError(ExpectedError):
    """The sweep ended without a winner; the message says why in one line."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A sweep as its user wants it."""

    question: Question
    dataset_version: str
    name: str
    recipe: str = "demo"
    """The named recipe that `question.train` came from; kept with the winner."""
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


def sweep(settings: Settings, asked: Asked) -> SweepOutcome:
    """Try, keep, and write the winner down.

    Raises:
        SpaceError, SweepConfigError, VersionError, TrainDataError, RunError, TrackingError, CapacityError: before
            anything runs.
        SweepError: no trial has a value.
        ClaimedError: another job runs this sweep.
    """
    store, question = ObjectStore(settings), asked.question
    _check(asked, manifest(store, asked.dataset_version))
    begun, resumed = sweep_store.begin(
        store, asked.name, fingerprint(question), asked.dataset_version, fresh=asked.fresh
    )
    told = {"dataset_version": asked.dataset_version, "git_commit": asked.git_commit}
    with claim(f"sweep {begun.key}"):
        book = Ledger(store, begun)
        nested = Nested.open(settings.mlflow_tracking_uri, begun, _params(question), told)
        keeper = _run(settings, asked, book, nested)
        return _conclude(settings, asked, keeper, nested, resumed=resumed)


def fingerprint(question: Question) -> str:
    """Of everything that decides which trials there are and how they are judged."""
    return sweep_store.fingerprint(
        {
            "train": question.train.fingerprint,
            "space": spaces.described(question.space),
            "seed": question.seed,
            **question.config.identity(),
        }
    )


def default_name(question: Question, dataset_version: str) -> str:
    """The same question about the same data is the same sweep."""
    return f"sweep-{dataset_version[:8]}-{fingerprint(question)[:8]}"


def _check(asked: Asked, described: dict[str, Any]) -> None:
    """Refuse in seconds what every trial would refuse after its start."""
    question = asked.question
    spaces.check(question.train, question.space)
    if question.config.scheduler == "pbt":
        schedulers.pbt(question.config, question.space, question.seed)
    names = question.space.get("model.name")
    for name in names.ends if names is not None else [question.train.model.name]:
        model = replace(question.train.model, name=name)
        trainer.check(replace(question.train, model=model), described)


def _params(question: Question) -> dict[str, Any]:
    return {
        **question.config.identity(),
        "seed": question.seed,
        **{f"space.{name}": one for name, one in spaces.described(question.space).items()},
    }


def _run(settings: Settings, asked: Asked, book: Ledger, nested: Nested) -> Keeper:
    """Run trials until there are enough or the budget is spent."""
    question = asked.question
    train = _kept_for_others(question)
    desk = ray.remote(Desk).options(num_cpus=0).remote()
    keeper = Keeper(book, question, nested, close=lambda: ray.get(desk.close.remote()))
    work = Runs(settings=settings, base=train, dataset_version=asked.dataset_version)
    pointer = work.pointer if question.config.scheduler == "pbt" else None
    ground = Ground(
        desk=desk, epochs=train.epochs, metric=question.config.metric, train=work, pointer=pointer
    )
    try:
        if not keeper.done:
            run_trials(keeper, ground, room_now(train))
    finally:
        ray.kill(desk)
    return keeper


def _kept_for_others(question: Question) -> TrainConfig:
    """With pbt the checkpoint at the end of each epoch stays, since another trial may begin with it."""
    return (
        replace(question.train, keep_every_epochs=1) if question.config.scheduler == "pbt" else question.train
    )


def room_now(config: TrainConfig, patience_s: float = PATIENCE_S) -> list[Node]:
    """What the cluster's nodes have for trials, once there is room for one beside what else runs.

    This machine counts with no more processors than it really has, as Ray may have been told of more; one trial may
    have those all the same.
    """
    deadline = time.monotonic() + patience_s
    workers = config.min_workers or config.num_workers
    needed = Node(cpus=workers * config.cpus_per_worker, gpus=workers if config.use_gpu else 0)
    while (free := ray.available_resources()).get("CPU", 0) < needed.cpus and time.monotonic() < deadline:
        time.sleep(1)
    if free.get("CPU", 0) < needed.cpus:
        return [Node(cpus=free.get("CPU", 0), gpus=free.get("GPU", 0))]
    told = [one for one in ray.nodes() if one["Alive"]]
    here = ray.get_runtime_context().get_node_id()
    nodes = [Node(cpus=one["Resources"].get("CPU", 0), gpus=one["Resources"].get("GPU", 0)) for one in told]
    real = [
        replace(node, cpus=min(node.cpus, os.cpu_count() or 1)) if one["NodeID"] == here else node
        for one, node in zip(told, nodes, strict=True)
    ]
    if room(nodes, config) and not room(real, config):
        return [needed]
    return real if room(real, config) else nodes


def run_trials(keeper: Keeper, ground: Ground, nodes: Sequence[Node]) -> None:
    """Run Tune until the keeper has no more trials.

    Each driver holds a share of this node's own resource, as large as makes the wanted number of them fit at once: so
    no other begins before all that one held is free, whatever the scheduler does.
    """
    config, train = keeper.question.config, keeper.question.train
    at_once = concurrent(nodes, train, wanted=config.max_concurrent_trials, trials=config.trials)
    for name, value in RAY_TUNE.items():
        os.environ.setdefault(name, value)
    share = ray.tune.PlacementGroupFactory([{_own_node(): (NODE_SHARES // at_once) / NODE_SHARES}])
    trainable = ray.tune.with_resources(ray.tune.with_parameters(TrialDriver, ground=ground), share)
    with scratch() as nothing:  # what Tune would keep, the ledger has
        tuner = ray.tune.Tuner(
            trainable,
            **_searched(keeper, train.epochs, at_once),
            run_config=ray.tune.RunConfig(
                name="sweep",
                storage_path=str(nothing),
                callbacks=[keeper],
                checkpoint_config=ray.tune.CheckpointConfig(checkpoint_at_end=False),
                verbose=0,
            ),
        )
        tuner.fit()


def _searched(keeper: Keeper, epochs: int, at_once: int) -> dict[str, Any]:
    """How Tune finds its trials."""
    question = keeper.question
    if question.config.scheduler == "asha":
        scheduler = schedulers.asha(question.config, epochs, keeper.ledger.trials)
        search = {
            "search_alg": Suggester(keeper),
            "max_concurrent_trials": at_once,
            "num_samples": question.config.trials,
        }
        return {"tune_config": ray.tune.TuneConfig(scheduler=scheduler, **search)}
    population = []
    while (one := keeper.next_trial()) is not None:
        population.append(one[TRIAL])
    scheduler = schedulers.pbt(question.config, question.space, question.seed)
    return {
        "param_space": {TRIAL: ray.tune.grid_search(population)},
        "tune_config": ray.tune.TuneConfig(scheduler=scheduler, search_alg=BasicVariantGenerator()),
    }


def _own_node() -> str:
    """The resource that only this node has."""
    here = ray.get_runtime_context().get_node_id()
    own = next(one for one in ray.nodes() if one["NodeID"] == here)
    return next(
        name for name in own["Resources"] if name.startswith("node:") and "__internal_head__" not in name
    )


def _conclude(
    settings: Settings, asked: Asked, keeper: Keeper, nested: Nested, *, resumed: bool
) -> SweepOutcome:
    """Bring MLflow up to date, write the winner and the pictures, and drop what only losers need."""
    question, book = asked.question, keeper.ledger
    trials = book.trials
    for trial in trials:
        config = spaces.applied(question.train, trial.settings)
        run, _ = runs.begin(book.store, trial.run, config, asked.dataset_version, fresh=False)
        run_id = nested.catch_up(trial, config, run.key)
        if run_id != trial.mlflow_run_id:
            book.put(replace(trial, mlflow_run_id=run_id))
    keeper.drop_weights()
    best = sweep_store.best(trials, question.config.metric, question.config.mode)
    if best is None:
        nested.fail()
        raise SweepError(_why_none(trials))
    value = best.rows[-1][question.config.metric]
    text = _recipe(asked, best, value, trials)
    recipe_key = f"{book.sweep.folder}/{RECIPE_NAME}"
    book.store.put(runs.BUCKET, recipe_key, text.encode())
    pictures = figures.figures(trials, question.space, question.config, book.sweep.name)
    with tempfile.TemporaryDirectory() as folder:
        files = {**pictures, RECIPE_NAME: text.encode()}
        for name, blob in files.items():
            Path(folder, name).write_bytes(blob)
        found = {f"best_{question.config.metric}": value, "cpu_minutes": book.cpu_minutes}
        nested.finish(found, [Path(folder, name) for name in files])
    return SweepOutcome(
        run=book.sweep.name,
        mlflow_run_id=nested.parent,
        resumed=resumed,
        trials=sweep_store.count(trials),
        trained=len(keeper.touched),
        broke={one.number: one.why for one in trials if one.state == "unfinished" and one.why},
        best=best,
        value=value,
        cpu_minutes=round(book.cpu_minutes, 2),
        recipe=text,
        recipe_key=recipe_key,
        pictures=pictures,
        importance=_importance(trials, question),
    )


def _recipe(asked: Asked, best: Trial, value: float, trials: Sequence[Trial]) -> str:
    metric = asked.question.config.metric
    return recipe_file.text(
        best,
        spaces.applied(asked.question.train, best.settings),
        dataset_version=asked.dataset_version,
        recipe=asked.recipe,
        found=f"The best of {len(trials)} trials of sweep {asked.name}: {metric} {value:.4f} after epoch {best.epochs}",
    )


def _importance(trials: Sequence[Trial], question: Question) -> dict[str, float] | str:
    found = figures.importance(trials, question.space, question.config)
    if found is not None:
        return {name: round(share, 3) for name, share in found.items()}
    if question.config.scheduler == "pbt":
        return "none: pbt changes settings on the way"
    return f"none: it takes at least {figures.MIN_TRIALS} trials that ended, with values that differ"


def _why_none(trials: Sequence[Trial]) -> str:
    failed = [one for one in trials if one.state == "failed"]
    broke = [one for one in trials if one.why and one not in failed]
    if failed and len(failed) == len(trials):
        return f"all {len(trials)} trials failed; trial {failed[0].number}: {failed[0].why}"
    if broke:
        return f"no trial finished an epoch; trial {broke[0].number}: {broke[0].why}"
    return "no trial finished an epoch within the budget: raise --budget_cpu_minutes, and the sweep goes on"
