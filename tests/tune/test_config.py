from typing import Any

import pytest

from tune.config import METRICS, SweepConfig, SweepConfigError


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"budget_cpu_minutes": 0}, "budget_cpu_minutes must be a positive number"),
        ({"budget_cpu_minutes": -3}, "budget_cpu_minutes"),
        ({"budget_cpu_minutes": float("nan")}, "budget_cpu_minutes"),
        ({"budget_cpu_minutes": float("inf")}, "budget_cpu_minutes"),
        ({"trials": 0}, "trials must be at least 1"),
        ({"metric": "test_accuracy"}, "metric is one of validation_balanced_accuracy"),
        ({"scheduler": "hyperband"}, "scheduler is one of asha, pbt"),
        ({"reduction_factor": 1}, "reduction_factor must be at least 2"),
        ({"max_concurrent_trials": -1}, "max_concurrent_trials must not be negative"),
        ({"scheduler": "pbt", "trials": 1}, "pbt needs at least 2 trials"),
    ],
)
def test_an_impossible_value_is_named(given: dict[str, Any], why: str) -> None:
    with pytest.raises(SweepConfigError, match=why):
        SweepConfig(**given)


def test_no_metric_is_of_the_test_split_and_each_knows_which_way_is_better() -> None:
    assert all(name.startswith("validation_") for name in METRICS)
    assert SweepConfig(metric="validation_loss").mode == "min"
    assert SweepConfig().mode == "max"


def test_more_trials_and_more_budget_are_the_same_sweep_and_another_scheduler_is_not() -> None:
    plain = SweepConfig().identity()
    assert SweepConfig(trials=99, budget_cpu_minutes=9, max_concurrent_trials=1).identity() == plain
    assert SweepConfig(scheduler="pbt").identity() != plain
    assert SweepConfig(grace_epochs=5).identity() != plain
