"""MLflow in a SQLite file; a server that goes away is in tests/services_training/test_train_interrupted.py."""

import logging
import time
from collections.abc import Iterator
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from train.tracking import mlflow_runs
from train.tracking.mlflow_runs import MetricLog, TrackingError

pytestmark = pytest.mark.filterwarnings("ignore")  # MLflow's and SQLAlchemy's about themselves


@pytest.fixture(scope="module")
def mlflow(tmp_path_factory: pytest.TempPathFactory) -> MlflowClient:
    return mlflow_runs.client(f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'mlflow.db'}")


@pytest.fixture
def away(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[bool]]:
    """A switch for an MLflow that takes no metrics: not empty is away."""
    switch: list[bool] = []
    log_rows = mlflow_runs.log_rows

    def refusing(*arguments: Any) -> None:
        if switch:
            raise MlflowException("connection refused\nwith a long story")
        log_rows(*arguments)

    monkeypatch.setattr(mlflow_runs, "log_rows", refusing)
    monkeypatch.setattr(mlflow_runs, "RETRY_S", 0.02)
    yield switch
    switch.clear()


def rows(mlflow: MlflowClient, run_id: str) -> list[int]:
    return sorted(one.step for one in mlflow.get_metric_history(run_id, "train_loss"))


def test_rows_wait_while_mlflow_is_away_and_are_sent_once_when_it_is_back(
    mlflow: MlflowClient, away: list[bool], caplog: pytest.LogCaptureFixture
) -> None:
    run_id = mlflow_runs.start_run(mlflow, "key/away", "away", {})
    away.append(True)
    with caplog.at_level(logging.WARNING), MetricLog.opened(mlflow.tracking_uri, run_id) as log:
        started_at = time.monotonic()
        for epoch in (1, 2, 3):
            log.put({"epoch": epoch, "step": 5 * epoch, "train_loss": 1.0 / epoch})
        assert time.monotonic() - started_at < 0.5  # nobody waits
        time.sleep(0.3)
        away.clear()
    assert rows(mlflow, run_id) == [1, 2, 3]
    assert [one for one in caplog.messages if "training goes on" in one] == [
        "MLflow does not take metrics (connection refused); training goes on and they are sent again"
    ]


def test_the_end_does_not_wait_long_for_an_mlflow_that_stays_away(
    mlflow: MlflowClient, away: list[bool], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mlflow_runs, "CLOSE_TIMEOUT_S", 0.2)
    run_id = mlflow_runs.start_run(mlflow, "key/stays-away", "stays-away", {})
    away.append(True)
    with caplog.at_level(logging.WARNING), MetricLog.opened(mlflow.tracking_uri, run_id) as log:
        log.put({"epoch": 1, "step": 5, "train_loss": 1.0})
    assert any("are logged when training is over" in one for one in caplog.messages)
    with pytest.raises(TrackingError, match="run the same command again") as caught:
        with mlflow_runs.answering(mlflow):
            mlflow_runs.log_rows(mlflow, run_id, [])
    assert "\n" not in str(caught.value)


def test_a_run_that_goes_on_with_another_number_of_workers_keeps_its_first_parameters(
    mlflow: MlflowClient,
) -> None:
    first = mlflow_runs.start_run(mlflow, "key/params", "params", {"num_workers": 2})
    assert mlflow_runs.start_run(mlflow, "key/params", "params", {"num_workers": 1, "new": "x"}) == first
    assert mlflow.get_run(first).data.params == {"num_workers": "2", "new": "x"}
