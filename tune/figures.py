"""Pictures of a sweep: which settings mattered, and what the trials had and reached."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from optuna.importance import FanovaImportanceEvaluator, get_param_importances

from train.metrics.plots import png
from tune.config import SweepConfig
from tune.space import Range, Space
from tune.suggest import study_of
from tune.sweep_store import Trial

MIN_TRIALS = 4
"""With fewer, importance would be read out of noise."""


def figures(trials: Sequence[Trial], space: Space, config: SweepConfig, title: str) -> dict[str, bytes]:
    """Draw the pictures, file name → PNG; without importance where there are too few trials."""
    draws: dict[str, Callable[[Any], None]] = {
        "parallel-coordinates.png": lambda axes: _coordinates(axes, trials, space, config)
    }
    shares = importance(trials, space, config)
    if shares is not None:
        draws["importance.png"] = lambda axes: _importance(axes, shares, config)
    return {name: png(draw, title) for name, draw in draws.items()}


def importance(trials: Sequence[Trial], space: Space, config: SweepConfig) -> dict[str, float] | None:
    """Return the share of the variance that each setting explains (fANOVA), the largest first; None with too few
    trials, and with pbt, where settings change on the way.

    Trials that ran for different times cannot be compared, so it is of the value after the last epoch that all of them
    have.
    """
    compared = at_common_epoch(trials, config.metric)
    if config.scheduler == "pbt" or len(compared) < MIN_TRIALS:
        return None
    values = {trial.value(config.metric) for trial in compared}
    if len(values) < 2:
        return None
    study = study_of(space, compared, config)
    return get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=0))


def at_common_epoch(trials: Sequence[Trial], metric: str) -> list[Trial]:
    """Return the trials as if they had ended after the last epoch that all of them have."""
    tried = [trial for trial in trials if trial.rows and trial.state in ("complete", "stopped")]
    epoch = min((trial.epochs for trial in tried), default=0)
    return [
        replace(trial, state="complete", rows=[row for row in trial.rows if row["epoch"] <= epoch])
        for trial in tried
    ]


def _importance(axes: Any, shares: dict[str, float], config: SweepConfig) -> None:
    names = list(shares)[::-1]
    axes.barh(names, [shares[name] for name in names])
    axes.set(xlabel=f"share of the variance of {config.metric} explained (fANOVA)", xlim=(0, 1))


def _coordinates(axes: Any, trials: Sequence[Trial], space: Space, config: SweepConfig) -> None:
    """Draw a line a trial through its settings, each on an axis of its own; dark is better, dashed was ended early."""
    tried = [trial for trial in trials if trial.rows]
    names = list(space)
    values_N = np.array([trial.rows[-1][config.metric] for trial in tried])
    better_N = values_N if config.mode == "max" else -values_N
    spread = float(np.ptp(better_N)) if len(better_N) else 0.0
    for trial, value, better in zip(tried, values_N, better_N, strict=True):
        shade = 0.5 if spread == 0 else (better - better_N.min()) / spread
        heights = [_height(space[name], trial.settings[name]) for name in names] + [shade]
        style = "-" if trial.state == "complete" else "--"
        axes.plot(range(len(heights)), heights, style, color=(0.1, 0.2, 0.5, 0.15 + 0.85 * shade))
        axes.annotate(
            f"{trial.number}: {value:.3f}",
            (len(names), shade),
            xytext=(4, 0),
            textcoords="offset points",
            fontsize=7,
        )
    axes.set_xticks(range(len(names) + 1), [*names, config.metric], rotation=45, ha="right")
    axes.set_yticks([])
    for nth, name in enumerate(names):
        axes.axvline(nth, color="grey", linewidth=0.5)
        for end, height in ((space[name].ends[0], 0.0), (space[name].ends[-1], 1.0)):
            axes.annotate(f"{end:g}" if isinstance(end, int | float) else str(end), (nth, height), fontsize=7)


def _height(dimension: Any, value: Any) -> float:
    """Return the place of a value on its axis, 0 to 1."""
    if isinstance(dimension, Range):
        ends = np.array([dimension.low, value, dimension.high], float)
        low, at, high = np.log(ends) if dimension.log else ends
        return float((at - low) / (high - low))
    return dimension.choices.index(value) / max(1, len(dimension.choices) - 1)
