"""Look for better settings: many trainings of one recipe with others, the best of them as a recipe file.

A sweep that was killed goes on where it was, with the same command; more trials or more budget make it go on too.
"""

import os
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from cluster.embedded.home import Home
from cluster.objects import ObjectStore
from cluster.settings import Settings
from data.catalog import tables
from jobs.recipes import recipe
from jobs.runtime import entry
from jobs.runtime.inputs import require_accepted
from train.config import TrainConfig
from train.runs.run_store import BUCKET
from tune import space as spaces
from tune.config import SweepConfig


@dataclass(frozen=True, kw_only=True)
class Arguments(SweepConfig):
    recipe: str = "demo"
    """Whose settings to start from; the first trial has them as they are."""
    dataset_version: str | None = None
    """Default: the newest."""
    run: str | None = None
    """Name of the sweep to start or to continue; default: made of dataset version, settings and space."""
    fresh: bool = False
    """Start anew even where a sweep of this name exists."""
    seed: int | None = None
    """Of the suggestions, and overrides `train.seed`."""
    space: str | None = None
    """A YAML file of settings and their ranges (docs/tuning.md); default: `tune.space.DEFAULT`."""
    recipe_file: str | None = None
    """Where the winner is written; default: `sweeps/NAME.yaml` below the platform's home."""
    train: TrainConfig = field(default_factory=TrainConfig)

    @property
    def sweep(self) -> SweepConfig:
        return SweepConfig(**{name: getattr(self, name) for name in SweepConfig.__dataclass_fields__})


def work(arguments: Arguments) -> dict[str, Any]:
    train = arguments.train if arguments.seed is None else replace(arguments.train, seed=arguments.seed)
    space = spaces.read(Path(arguments.space)) if arguments.space else spaces.parse(spaces.DEFAULT)
    spaces.check(train, space)
    settings = Settings.from_env()
    version = arguments.dataset_version or tables.newest_version(settings)
    require_accepted(settings, version)
    from tune import sweep as tuning  # Ray, torch and Optuna: not for a mistake in the space

    spec = tuning.SweepSpec(config=arguments.sweep, train=train, space=space, seed=train.seed)
    name = arguments.run or tuning.default_name(spec, version)
    target = Path(arguments.recipe_file) if arguments.recipe_file else _default_target(name)
    target.parent.mkdir(parents=True, exist_ok=True)
    entry.join_ray(settings.ray_address)
    request = tuning.SweepRequest(
        spec=spec,
        dataset_version=version,
        name=name,
        recipe=arguments.recipe,
        fresh=arguments.fresh,
        git_commit=entry.git_commit(),
    )
    outcome = tuning.sweep(settings, request)
    _write(target, outcome.recipe, outcome.pictures)
    best = {"value": outcome.value, "trial": outcome.best.number, "epochs": outcome.best.epochs}
    config = ObjectStore(settings).uri(BUCKET, outcome.recipe_key)
    names = ("run", "mlflow_run_id", "resumed", "trials", "trained", "broke", "cpu_minutes", "importance")
    return {
        **{key: value for key, value in asdict(outcome).items() if key in names},
        "dataset_version": version,
        "metric": spec.config.metric,
        "best": {**best, "settings": outcome.best.settings, "config": config},
        "recipe_file": str(target),
    }


def _default_target(name: str) -> Path:
    return Home.from_env(os.environ).path / "sweeps" / f"{name}.yaml"


def _write(target: Path, text: str, pictures: dict[str, bytes]) -> None:
    """Write the recipe, and the pictures beside it."""
    target.write_text(text)
    for name, blob in pictures.items():
        target.with_name(f"{target.stem}-{name}").write_bytes(blob)


def defaults(name: str) -> dict[str, Any]:
    """Return the arguments that a recipe fills."""
    return {"train": recipe(name).train}


if __name__ == "__main__":
    entry.main("tune", Arguments, work, defaults)
