"""Ray Tune's schedulers: ASHA, which stops trials, and PBT, which changes them.

Both decide at the end of an epoch. After a kill ASHA gets the rows of the earlier attempt in their order and repeats
its decisions; PBT goes on from where each trial is.
"""

import hashlib
import random
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import ray.tune
from ray.tune.schedulers import ASHAScheduler, PopulationBasedTraining

from tune import space as spaces
from tune.config import SweepConfig
from tune.space import Range, Space
from tune.sweep_store import Trial
from tune.trial import TRIAL

TIME = "epoch"


def asha(config: SweepConfig, epochs: int, past: Sequence[Trial]) -> ASHAScheduler:
    """Make an ASHA scheduler that has seen the rows of finished trials."""
    scheduler = ASHAScheduler(
        time_attr=TIME,
        metric=config.metric,
        mode=config.mode,
        max_t=epochs,
        grace_period=min(config.grace_epochs, epochs),
        reduction_factor=config.reduction_factor,
    )
    over = {trial.number: trial for trial in past if trial.state != "unfinished"}
    stand_ins = {number: SimpleNamespace(trial_id=f"before-{number}") for number in over}
    for stand_in in stand_ins.values():
        scheduler.on_trial_add(None, stand_in)
    rows = sorted((row["nth"], number, row) for number, trial in over.items() for row in trial.rows)
    for _, number, row in rows:
        scheduler.on_trial_result(None, stand_ins[number], row)
    return scheduler


class Population(PopulationBasedTraining):
    """PBT whose trials keep their number when they take another one's settings and weights."""

    def _get_new_config(self, trial: Any, trial_to_clone: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        config, operations = super()._get_new_config(trial, trial_to_clone)
        own, new = trial.config[TRIAL], config[TRIAL]
        epoch = self._trial_state[trial_to_clone].last_train_time
        digest = hashlib.sha256(repr((sorted(new["settings"].items()), new["run"])).encode()).hexdigest()
        trunk = own["run"].partition("-e")[0]
        identity = {"number": own["number"], "mlflow_run_id": own["mlflow_run_id"]}
        config[TRIAL] = {**new, **identity, "run": f"{trunk}-e{int(epoch):03d}-{digest[:6]}"}
        return config, operations


def pbt(config: SweepConfig, space: Space, seed: int) -> Population:
    """Make a PBT scheduler over the part of the space that may change within a run.

    Raises:
        SpaceError: there is no such part.
    """
    changing = spaces.within_a_run(space)
    if not changing:
        raise spaces.SpaceError(
            "space: pbt changes settings within a run, which needs at least one of optim.*, augment.*, label_smoothing "
            "and class_balance"
        )
    random.seed(seed)  # Ray's PBT draws from the module's generator

    def clamped(given: dict[str, Any]) -> dict[str, Any]:
        trial = given[TRIAL]
        settings = {name: space[name].clamped(value) for name, value in trial["settings"].items()}
        return {**given, TRIAL: {**trial, "settings": settings}}

    mutations = {name: _mutation(dimension) for name, dimension in changing.items()}
    return Population(
        time_attr=TIME,
        metric=config.metric,
        mode=config.mode,
        perturbation_interval=config.perturb_epochs,
        hyperparam_mutations={TRIAL: {"settings": mutations}},
        custom_explore_fn=clamped,
        log_config=False,
    )


def _mutation(dimension: spaces.Dimension) -> Any:
    if not isinstance(dimension, Range):
        return list(dimension.choices)
    low, high = dimension.ends
    if dimension.whole:
        return ray.tune.lograndint(low, high + 1) if dimension.log else ray.tune.randint(low, high + 1)
    return ray.tune.loguniform(low, high) if dimension.log else ray.tune.uniform(low, high)
