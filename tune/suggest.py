"""Chooses a trial's settings with Optuna, as a function of seed, number and the results of the other trials.

No sampler lives from one trial to the next, so a sweep that was killed goes on with the suggestions that it would have
had: each is made anew from the sweep store. The first trial has the recipe's own settings, where the space has them, so
that the recipe is among what is compared.
"""

import hashlib
from collections.abc import Sequence

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from tune.config import SweepConfig
from tune.space import Choice, Dimension, Settings, Space
from tune.sweep_store import Trial

DIRECTIONS = {"min": StudyDirection.MINIMIZE, "max": StudyDirection.MAXIMIZE}
STATES = {
    "complete": TrialState.COMPLETE,
    "stopped": TrialState.PRUNED,
    "failed": TrialState.FAIL,
    "unfinished": TrialState.RUNNING,
}


def suggest(
    space: Space, own: Settings, past: Sequence[Trial], number: int, config: SweepConfig, seed: int
) -> Settings:
    """Return the settings of trial `number`.

    Args:
        own: the recipe's values for the settings of the space.
        past: all trials with lower numbers, finished or not.
    """
    if number == 0 and all(space[name].has(value) for name, value in own.items()):
        return own
    digest = hashlib.sha256(f"{seed}/{number}".encode()).digest()
    random_trials = config.trials if config.scheduler == "pbt" else config.random_trials
    sampler = optuna.samplers.TPESampler(
        n_startup_trials=random_trials, constant_liar=True, seed=int.from_bytes(digest[:4], "big")
    )
    study = study_of(space, past, config, sampler)
    return dict(study.ask(distributions(space)).params)


def study_of(
    space: Space,
    past: Sequence[Trial],
    config: SweepConfig,
    sampler: optuna.samplers.BaseSampler | None = None,
) -> optuna.Study:
    """Make an Optuna study of the trials so far."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction=DIRECTIONS[config.mode], sampler=sampler)
    study.add_trials([_frozen(trial, space, config.metric) for trial in past])
    return study


def _frozen(trial: Trial, space: Space, metric: str) -> FrozenTrial:
    state = STATES[trial.state]
    return create_trial(
        state=state,
        value=trial.value(metric) if state == TrialState.COMPLETE else None,
        params=trial.settings,
        distributions=distributions(space),
        intermediate_values={int(row["epoch"]): row[metric] for row in trial.rows},
    )


def distributions(space: Space) -> dict[str, BaseDistribution]:
    return {name: _distribution(dimension) for name, dimension in space.items()}


def _distribution(dimension: Dimension) -> BaseDistribution:
    if isinstance(dimension, Choice):
        return CategoricalDistribution(dimension.choices)
    low, high = dimension.ends
    if dimension.whole:
        return IntDistribution(low, high, log=dimension.log)
    return FloatDistribution(low, high, log=dimension.log)
