"""ASHA after a restart decides as it would have without one."""

from types import SimpleNamespace
from typing import Any

import pytest
from ray.tune.schedulers import TrialScheduler

from tune import space as spaces
from tune.config import SweepConfig
from tune.schedulers import Population, asha, pbt
from tune.sweep_store import State, Trial
from tune.trial import TRIAL

METRIC = "validation_balanced_accuracy"
CONFIG = SweepConfig(grace_epochs=1, reduction_factor=2)


def trial(number: int, *values: float, state: State = "stopped") -> Trial:
    rows = [{"epoch": nth + 1, METRIC: value, "nth": 10 * number + nth} for nth, value in enumerate(values)]
    return Trial(number=number, run=f"t{number}", settings={}, state=state, rows=rows)


def decision(past: list[Trial], value: float) -> str:
    """On the first epoch of a new trial."""
    scheduler = asha(CONFIG, 4, past)
    new: Any = SimpleNamespace(trial_id="new")
    scheduler.on_trial_add(None, new)
    said: str = scheduler.on_trial_result(None, new, {"epoch": 1, METRIC: value})
    return said


def test_what_was_reached_before_a_restart_still_counts() -> None:
    past = [trial(0, 0.5, 0.6, 0.7, 0.8, state="complete"), trial(1, 0.4)]
    assert decision([], 0.3) == TrialScheduler.CONTINUE
    assert decision(past, 0.3) == TrialScheduler.STOP
    assert decision(past, 0.9) == TrialScheduler.CONTINUE


def test_trials_that_go_on_tell_their_rows_themselves() -> None:
    assert decision([trial(0, 0.5, state="unfinished")], 0.3) == TrialScheduler.CONTINUE


def test_a_grace_that_is_longer_than_the_training_stops_nobody_early() -> None:
    assert asha(SweepConfig(grace_epochs=9), 3, []) is not None


def test_pbt_keeps_each_trial_s_number_and_stays_in_the_space() -> None:
    space = spaces.parse(
        {
            "optim.learning_rate": {"low": 1e-3, "high": 2e-3, "log": True},
            "model.drop_path_rate": {"low": 0, "high": 0.3},
            "label_smoothing": {"low": 0, "high": 0.1},
        }
    )
    population = pbt(SweepConfig(scheduler="pbt", trials=4), space, 0)
    assert isinstance(population, Population)
    settings = {"optim.learning_rate": 2e-3, "model.drop_path_rate": 0.25, "label_smoothing": 0.1}

    class Other(SimpleNamespace):
        __hash__ = object.__hash__  # PBT keeps its trials in a dictionary

    def one(number: int) -> Any:
        told = {"number": number, "run": f"s-t{number}", "known_epoch": 0, "mlflow_run_id": f"m{number}"}
        return Other(config={TRIAL: {**told, "settings": settings}})

    behind, ahead = one(1), one(2)
    population._trial_state = {ahead: SimpleNamespace(last_train_time=4)}
    seen = set()
    for _ in range(50):
        new = population._get_new_config(behind, ahead)[0][TRIAL]
        assert (new["number"], new["mlflow_run_id"]) == (1, "m1")
        assert new["run"].startswith("s-t1-e004-")
        assert new["settings"]["model.drop_path_rate"] == 0.25
        assert all(space[name].has(value) for name, value in new["settings"].items())
        seen.add(new["run"])
    assert len(seen) > 5


def test_pbt_over_a_space_that_cannot_change_within_a_run_is_refused() -> None:
    with pytest.raises(spaces.SpaceError, match="pbt changes settings within a run"):
        pbt(SweepConfig(scheduler="pbt"), spaces.parse({"batch_size": {"choices": [8, 16]}}), 0)
