"""System metrics in a SQLite MLflow, from this machine."""

import time
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from train.tracking import mlflow_runs, system_metrics
from train.tracking.system_metrics import machine_name, watched

pytestmark = pytest.mark.filterwarnings("ignore")  # MLflow's and SQLAlchemy's about themselves


@pytest.fixture(scope="module")
def mlflow(tmp_path_factory: pytest.TempPathFactory) -> MlflowClient:
    return mlflow_runs.client(f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'mlflow.db'}")


def samples(mlflow: MlflowClient, run_id: str, name: str) -> list[float]:
    return [one.value for one in mlflow.get_metric_history(run_id, name)]


def test_a_machine_is_sampled_while_something_runs_and_a_last_time_at_the_end(
    mlflow: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(system_metrics, "EVERY_S", 0.1)
    run_id = mlflow_runs.start_run(mlflow, "key/sampled", "sampled", {})
    with watched(mlflow.tracking_uri, run_id):
        until_s = time.monotonic() + 20
        while len(samples(mlflow, run_id, "system/cpu_utilization_percentage")) < 3:
            assert time.monotonic() < until_s
    busy = samples(mlflow, run_id, "system/cpu_utilization_percentage")
    assert all(0 <= one <= 100 for one in busy)
    assert any(busy)
    assert all(one > 100 for one in samples(mlflow, run_id, "system/system_memory_usage_megabytes"))
    names = set(mlflow.get_run(run_id).data.metrics)
    assert {"system/disk_usage_percentage", "system/network_receive_megabytes"} <= names


def test_one_of_several_machines_has_its_name_in_the_metrics(mlflow: MlflowClient) -> None:
    run_id = mlflow_runs.start_run(mlflow, "key/several", "several", {})
    assert machine_name(0, 2, 2) == ""
    assert machine_name(1, 2, 4) == "node-1"
    with watched(mlflow.tracking_uri, run_id, "node-1"):
        pass
    assert len(samples(mlflow, run_id, "system/node-1/cpu_utilization_percentage")) == 1


def test_a_run_that_is_watched_waits_for_no_mlflow_and_samples_come_later(
    mlflow: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(system_metrics, "EVERY_S", 0.05)
    monkeypatch.setattr(mlflow_runs, "RETRY_S", 0.05)
    run_id = mlflow_runs.start_run(mlflow, "key/away", "away", {})
    log_batch, refused = MlflowClient.log_batch, [0]

    def refusing(*arguments: Any, **named: Any) -> None:
        if refused[0] < 5:
            refused[0] += 1
            raise MlflowException("connection refused")
        log_batch(*arguments, **named)

    monkeypatch.setattr(MlflowClient, "log_batch", refusing)
    with watched(mlflow.tracking_uri, run_id):
        until_s = time.monotonic() + 20
        while refused[0] < 5:
            assert time.monotonic() < until_s
            time.sleep(0.01)
    assert len(samples(mlflow, run_id, "system/cpu_utilization_percentage")) >= 2


def test_an_mlflow_that_stays_away_holds_the_end_up_for_a_moment_only(
    mlflow: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(system_metrics, "CLOSE_TIMEOUT_S", 0.2)
    run_id = mlflow_runs.start_run(mlflow, "key/stays-away", "stays-away", {})

    def refusing(*_: Any, **__: Any) -> None:
        raise MlflowException("connection refused")

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "log_batch", refusing)
        started_s = time.monotonic()
        with watched(mlflow.tracking_uri, run_id):
            pass
        assert time.monotonic() - started_s < mlflow_runs.CLOSE_TIMEOUT_S / 2


def test_where_nothing_is_tracked_nothing_is_watched() -> None:
    with watched(None, None):
        pass
