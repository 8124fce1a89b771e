import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from train.runs.workers import TrainError, _reason, run_status
from train.tracking import mlflow_runs

OUT_OF_MEMORY = """Training failed due to controller error:
ray.exceptions.OutOfMemoryError: 5 worker(s) were killed due to the node running low on memory. Memory on the node \
was 22.31GB used / 23.54GB limit.
Refer to the documentation on how to address the out of memory issue: https://docs.ray.io"""


@pytest.fixture(scope="module")
def mlflow(tmp_path_factory: pytest.TempPathFactory) -> MlflowClient:
    return mlflow_runs.client(f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'mlflow.db'}")


def test_a_full_machine_is_named_as_such_and_what_to_do_in_one_line() -> None:
    found = _reason(RuntimeError(OUT_OF_MEMORY))
    assert "ran out of memory" in found
    assert "goes on from the last checkpoint" in found
    assert "\n" not in found


def test_any_other_end_is_ray_s_last_line() -> None:
    assert (
        _reason(RuntimeError("Traceback:\n  here\nValueError: no such split\n"))
        == "ValueError: no such split"
    )


@pytest.mark.filterwarnings("ignore")  # MLflow's and SQLAlchemy's about themselves
def test_a_run_is_running_while_it_trains_and_failed_where_training_fails(mlflow: MlflowClient) -> None:
    run_id = mlflow_runs.start_run(mlflow, "key/fails", "fails", {})
    mlflow.set_terminated(run_id, status="FAILED")
    with run_status(mlflow, run_id):
        assert mlflow.get_run(run_id).info.status == "RUNNING"
    assert mlflow.get_run(run_id).info.status == "RUNNING"
    with pytest.raises(TrainError, match="no workers"), run_status(mlflow, run_id):
        raise TrainError("no workers")
    assert mlflow.get_run(run_id).info.status == "FAILED"


@pytest.mark.filterwarnings("ignore")
def test_a_failure_that_mlflow_does_not_take_is_told_with_mlflow_s_own(
    mlflow: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise MlflowException("connection refused")

    run_id = mlflow_runs.start_run(mlflow, "key/away", "away", {})
    failure = TrainError("no workers")
    monkeypatch.setattr(mlflow, "set_terminated", refuse)
    with pytest.raises(TrainError, match=r"no workers; and MLflow at .*connection refused") as caught:
        with run_status(mlflow, run_id):
            raise failure
    assert caught.value.__cause__ is failure
