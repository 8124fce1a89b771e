from pathlib import Path
from typing import Any

import pytest

from train.config import TrainConfig
from train.runs import run_store
from train.runs.run_store import RunError
from tune import sweep_store
from tune.sweep_store import SweepStore, Trial

METRIC = "validation_balanced_accuracy"


def trial(number: int, *values: float, state: sweep_store.State = "complete", **more: Any) -> Trial:
    rows = [{"epoch": epoch + 1, METRIC: value, "nth": epoch} for epoch, value in enumerate(values)]
    return Trial(number=number, run=f"t{number}", settings={}, state=state, rows=rows, **more)


def test_a_sweep_goes_on_where_its_name_stands_for_the_same_question(folder_store: Any) -> None:
    sweep, resumed = sweep_store.begin(folder_store, "s", "f", "d", fresh=False)
    assert not resumed
    assert sweep_store.begin(folder_store, "s", "f", "d", fresh=False) == (sweep, True)
    with pytest.raises(RunError, match="take another --run name, or --fresh"):
        sweep_store.begin(folder_store, "s", "other", "d", fresh=False)
    again, resumed = sweep_store.begin(folder_store, "s", "other", "d", fresh=True)
    assert (again.generation, resumed) == (2, False)


def test_a_name_that_would_leave_its_folder_is_refused(folder_store: Any) -> None:
    with pytest.raises(RunError, match="letters, digits"):
        sweep_store.begin(folder_store, "../s", "f", "d", fresh=False)


def test_what_was_put_is_there_for_the_next_attempt(folder_store: Any, tmp_path: Path) -> None:
    sweep, _ = sweep_store.begin(folder_store, "s", "f", "d", fresh=False)
    trial_store = SweepStore(folder_store, sweep)
    trial_store.put(trial(1, 0.5, cpu_s={"a": 90.0, "b": 30.0}))
    trial_store.put(trial(0, 0.4, 0.6, cpu_s={"c": 60.0}))
    found = SweepStore(folder_store, sweep)
    assert found.trials == trial_store.trials == [trial_store.trial(0), trial_store.trial(1)]
    assert (found.next_nth, found.cpu_minutes) == (2, 3.0)


def test_the_best_is_the_last_value_of_a_trial_that_came_to_its_end() -> None:
    trials = [trial(0, 0.9, 0.5), trial(1, 0.1, 0.6), trial(2, 0.8, state="stopped")]
    assert sweep_store.best(trials, METRIC, "max") == trials[1]
    assert sweep_store.best(trials, METRIC, "min") == trials[0]


def test_where_none_came_to_its_end_the_best_is_among_those_that_came_farthest() -> None:
    trials = [
        trial(0, 0.9, state="stopped"),
        trial(1, 0.1, 0.2, state="unfinished"),
        trial(2, state="failed"),
    ]
    assert sweep_store.best(trials, METRIC, "max") == trials[1]
    assert sweep_store.best(trials[2:], METRIC, "max") is None


def test_of_equal_trials_the_first_is_the_best() -> None:
    assert sweep_store.best([trial(1, 0.5), trial(0, 0.5)], METRIC, "max") == trial(0, 0.5)


def test_an_epoch_that_is_trained_again_replaces_what_came_after_it() -> None:
    again = trial(0, 0.1, 0.2, 0.3).with_row({"epoch": 2, METRIC: 0.9})
    assert [row[METRIC] for row in again.rows] == [0.1, 0.9]


def test_trials_are_counted_by_state() -> None:
    assert sweep_store.count([trial(0), trial(1, state="failed")]) == {
        "complete": 1,
        "stopped": 0,
        "failed": 1,
        "unfinished": 0,
    }


def test_weights_are_kept_only_where_a_trial_goes_on_or_may_win() -> None:
    trials = [
        trial(0, 0.5, 0.6),
        trial(1, 0.1, 0.7),
        trial(2, 0.9, state="stopped"),
        trial(3, state="failed"),
        trial(4, 0.2, state="unfinished", left=["s-g001-t004"]),
    ]
    lost = [trials[0].run, trials[2].run, trials[3].run]
    assert sweep_store.superseded(trials, METRIC, "max") == ["s-g001-t004", *lost]
    assert sweep_store.superseded(trials[2:3], METRIC, "max") == []  # the best, until one comes to its end


def test_dropped_weights_are_gone_and_the_run_begins_anew(folder_store: Any) -> None:
    config = TrainConfig()
    run, _ = run_store.begin(folder_store, "r", config, "d", fresh=False)
    run_store.note_trained(
        folder_store, run, run_store.Trained(weights_key="k", weights_sha256="", steps=1, history=[])
    )
    folder_store.put(run_store.BUCKET, f"{run.checkpoints}/step-1/0.safetensors", b"x")
    run_store.drop_weights(folder_store, "r")
    assert run_store.trained(folder_store, run) is None
    assert folder_store.keys(run_store.BUCKET, f"{run.checkpoints}/") == []
    assert run_store.begin(folder_store, "r", config, "d", fresh=False) == (run, True)
