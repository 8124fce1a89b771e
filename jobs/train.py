"""Train the ViT on a dataset version and register the result, without alias.

An unfinished run of the same name goes on from its last checkpoint; a finished one is not trained again.
"""

import os
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from cluster import progress
from cluster.settings import Settings
from data.catalog import tables
from jobs.recipes import recipe
from jobs.runtime import entry, working_tree
from jobs.runtime.inputs import require_accepted
from train.config import TrainConfig
from train.runs import run_store, trainer


@dataclass(frozen=True, kw_only=True)
class Arguments:
    recipe: str = "demo"
    """Whose settings to start from."""
    dataset_version: str | None = None
    """Default: the newest."""
    run: str | None = None
    """Name of the run to start or to continue; default: made of dataset version and settings."""
    fresh: bool = False
    """Start anew even where a run of this name exists."""
    seed: int | None = None
    """Overrides `train.seed`."""
    train: TrainConfig = field(default_factory=TrainConfig)


def run_train(
    settings: Settings, config: TrainConfig, dataset_version: str, *, run: str | None, fresh: bool
) -> dict[str, Any]:
    """Train and register; returns the fields of the job's line. Joins Ray.

    Raises:
        Halted: the dataset version failed its checks.
        JobError: it was never validated.
    """
    require_accepted(settings, dataset_version)
    entry.join_ray(settings.ray_address)
    name = run or run_store.default_name(config, dataset_version)
    made = trainer.train(
        settings,
        config,
        dataset_version,
        name,
        fresh=fresh,
        git_commit=entry.git_commit(),
        uncommitted=working_tree.uncommitted(settings, os.environ),
        progress=partial(progress.report, "register"),
    )
    return {
        "run": name,
        "mlflow_run_id": made.run_id,
        "resumed": made.resumed,
        "model_version": made.model_version,
        "steps": made.steps,
        "weights_sha256": made.weights_sha256,
    }


def work(arguments: Arguments) -> dict[str, Any]:
    settings = Settings.from_env()
    config = arguments.train
    if arguments.seed is not None:
        config = replace(config, seed=arguments.seed)
    version = arguments.dataset_version or tables.newest_version(settings)
    return run_train(settings, config, version, run=arguments.run, fresh=arguments.fresh)


def defaults(name: str) -> dict[str, Any]:
    """Return the arguments that a recipe fills."""
    return {"train": recipe(name).train}


if __name__ == "__main__":
    entry.main("train", Arguments, work, defaults)
