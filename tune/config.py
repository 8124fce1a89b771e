"""The settings of a sweep: number of trials, metric, scheduler, and budget of CPU time.

Knows neither Ray nor torch nor Optuna.
"""

from dataclasses import dataclass
from typing import Literal

METRICS = {"validation_balanced_accuracy": "max", "validation_accuracy": "max", "validation_loss": "min"}
"""What a sweep can be judged by, as `train.loop.validate` names it, and which way is better; never of the test
split.
"""
SCHEDULERS = ("asha", "pbt")


class SweepConfigError(ValueError):
    """A sweep's setting has an impossible value; the message names it."""


def _check(condition: bool, message: str) -> None:
    if not condition:
        raise SweepConfigError(message)


@dataclass(frozen=True, kw_only=True)
class SweepConfig:
    trials: int = 16
    """How many settings are tried; with pbt, how many are trained side by side."""
    budget_cpu_minutes: float = 120.0
    """CPU time of the workers of all trials, over all attempts at the sweep; when it is spent, trials that run end
    with their epoch, and no other begins. A sweep that spent it goes on when it is given more."""
    metric: Literal["validation_balanced_accuracy", "validation_accuracy", "validation_loss"] = (
        "validation_balanced_accuracy"
    )
    """What trials are judged by, after each epoch, on the validation split."""
    scheduler: Literal["asha", "pbt"] = "asha"
    """`asha` stops trials that are behind others at the same epoch (arXiv:1810.05934); `pbt` lets those that are
    behind go on from the weights of those ahead, with changed settings (arXiv:1711.09846)."""
    max_concurrent_trials: int = 0
    """How many trials run at once; 0: as many as the cluster has room for. With 1 the sweep is repeatable."""
    grace_epochs: int = 2
    """asha: epochs that every trial gets."""
    reduction_factor: int = 3
    """asha: of so many trials at an epoch, one goes on."""
    random_trials: int = 6
    """asha: so many trials are drawn at random before Optuna's estimator (TPE) chooses."""
    perturb_epochs: int = 2
    """pbt: epochs between two looks at who is behind."""

    def __post_init__(self) -> None:
        for name in ("trials", "grace_epochs", "perturb_epochs"):
            _check(getattr(self, name) >= 1, f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("max_concurrent_trials", "random_trials"):
            _check(getattr(self, name) >= 0, f"{name} must not be negative, got {getattr(self, name)}")
        _check(
            0 < self.budget_cpu_minutes < float("inf"),
            f"budget_cpu_minutes must be a positive number of minutes, got {self.budget_cpu_minutes}",
        )
        _check(
            self.reduction_factor >= 2, f"reduction_factor must be at least 2, got {self.reduction_factor}"
        )
        _check(self.metric in METRICS, f"metric is one of {', '.join(METRICS)}, got {self.metric!r}")
        _check(
            self.scheduler in SCHEDULERS,
            f"scheduler is one of {', '.join(SCHEDULERS)}, got {self.scheduler!r}",
        )
        _check(
            self.scheduler != "pbt" or self.trials >= 2,
            "pbt needs at least 2 trials that learn of each other",
        )

    @property
    def mode(self) -> Literal["min", "max"]:
        return "min" if METRICS[self.metric] == "min" else "max"

    def identity(self) -> dict[str, object]:
        """Return what decides which trials there are and how they are judged; more trials or budget changes neither."""
        own = {
            "asha": ("grace_epochs", "reduction_factor", "random_trials"),
            "pbt": ("perturb_epochs", "trials"),
        }[self.scheduler]
        return {name: getattr(self, name) for name in ("metric", "scheduler", *own)}
