"""MLflow runs: one for each training run, whatever number of attempts it takes.

Training never waits for MLflow: a thread sends the rows, and the driver adds missing ones at the end from the history
in the last checkpoint.
"""

import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster.expected import ExpectedError, first_line
from cluster.releases.registry import VIT

if TYPE_CHECKING:
    from mlflow import MlflowClient

EXPERIMENT = VIT
KIND = "custom_model_development"
"""Makes MLflow's page open on the runs instead of on traces of language models."""
RUN_TAG = "raydiology.run"
PARENT_TAG = "mlflow.parentRunId"
CLOSE_TIMEOUT_S = 20.0
RETRY_S = 5.0
KEPT_ROWS = 10_000
"""Rows held while MLflow does not accept them; the history in the checkpoints has them all."""
LOGGED_LATER = ("epoch", "step")

logger = logging.getLogger(__name__)


class TrackingError(ExpectedError):
    """MLflow does not answer where it must; the message says what to do."""


class MetricLog:
    """Sends rows of metrics to an MLflow run from a thread of its own, and retries while MLflow is down."""

    what = "metrics"

    def __init__(self, tracking_uri: str | None, run_id: str | None) -> None:
        self._rows: queue.Queue[Mapping[str, float] | None] = queue.Queue()
        self._thread: threading.Thread | None = None
        if tracking_uri and run_id:
            self._thread = threading.Thread(
                target=self._send, args=(tracking_uri, run_id), name="mlflow-metrics", daemon=True
            )
            self._thread.start()

    @classmethod
    @contextmanager
    def opened(cls, tracking_uri: str | None, run_id: str | None) -> Iterator["MetricLog"]:
        log = cls(tracking_uri, run_id)
        try:
            yield log
        finally:
            log.close()

    def put(self, row: Mapping[str, float]) -> None:
        """Queue one epoch's row, with its `epoch`."""
        self._rows.put(row)

    def close(self) -> None:
        """Wait up to `CLOSE_TIMEOUT_S` for the queue to empty."""
        if not self.end(CLOSE_TIMEOUT_S):
            logger.warning("MLflow is slow or down: the last metrics are logged when training is over")

    def end(self, within_s: float) -> bool:
        """Stop after the queued rows. Returns True if all were sent in time."""
        if self._thread is None:
            return True
        self._rows.put(None)
        self._thread.join(within_s)
        return not self._thread.is_alive()

    def _deliver(self, mlflow: "MlflowClient", run_id: str, rows: Sequence[Mapping[str, float]]) -> None:
        log_rows(mlflow, run_id, rows)

    def _send(self, tracking_uri: str, run_id: str) -> None:
        waiting: deque[Mapping[str, float]] = deque(maxlen=KEPT_ROWS)
        warned, ended = False, self._take(waiting, False)
        if not waiting:
            return
        from mlflow import MlflowClient  # seconds of imports, which a worker that starts anew has no time for
        from mlflow.exceptions import MlflowException

        client = MlflowClient(tracking_uri)
        while True:
            try:
                self._deliver(client, run_id, list(waiting))
                waiting.clear()
                warned = False
            except MlflowException as error:
                if not warned:
                    warned = True
                    logger.warning(
                        "MLflow does not take %s (%s); training goes on and they are sent again",
                        self.what,
                        first_line(error),
                    )
            if ended and not waiting:
                return
            ended = self._take(waiting, ended)

    def _take(self, waiting: "deque[Mapping[str, float]]", ended: bool) -> bool:
        """Move a queued row to the waiting ones, pausing if some were refused. Returns True once the queue ended."""
        try:
            row = self._rows.get(timeout=RETRY_S if waiting else None)
        except queue.Empty:
            return ended
        if row is not None:
            waiting.append(row)
        return row is None


@contextmanager
def answering(mlflow: "MlflowClient") -> Iterator[None]:
    """Turn errors of MLflow into one line.

    Raises:
        TrackingError: it does not answer, or refuses.
    """
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        raise TrackingError(
            f"MLflow at {mlflow.tracking_uri} does not take this run: {first_line(error)}. `make status` "
            "shows whether it runs; run the same command again, and what is done is not done anew"
        ) from error


def client(tracking_uri: str) -> "MlflowClient":
    from mlflow import MlflowClient  # two seconds of imports, spared where nothing is tracked
    from mlflow.environment_variables import MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT

    MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT.set(True)  # a job's standard output is read by programs
    return MlflowClient(tracking_uri)


def start_run(
    mlflow: "MlflowClient",
    run_key: str,
    name: str,
    params: Mapping[str, Any],
    *,
    experiment: str = EXPERIMENT,
    parent: str | None = None,
) -> str:
    """Return the id of the MLflow run of `run_key`, which the first call creates.

    Args:
        parent: id of the run that MLflow's page shows it below.
    Raises:
        TrackingError: MLflow does not answer.
    """
    from mlflow.entities import Param

    with answering(mlflow):
        experiment_id = _experiment(mlflow, experiment)
        runs = mlflow.search_runs([experiment_id], f"tags.`{RUN_TAG}` = '{run_key}'", max_results=1)
        tags = {RUN_TAG: run_key} | ({PARENT_TAG: parent} if parent else {})
        run = runs[0] if runs else mlflow.create_run(experiment_id, run_name=name, tags=tags)
        new = [Param(key, str(value)) for key, value in params.items() if key not in run.data.params]
        mlflow.log_batch(run.info.run_id, params=new)  # those of the first attempt stay, as MLflow wants it
    return str(run.info.run_id)


def log_rows(mlflow: "MlflowClient", run_id: str, rows: Sequence[Mapping[str, float]]) -> None:
    """Log rows of epochs, except those already logged (an attempt may repeat an epoch)."""
    from mlflow.entities import Metric

    logged_epochs = {metric.step for metric in mlflow.get_metric_history(run_id, "train_loss")}
    now_ms = int(time.time() * 1000)
    for row in rows:
        if int(row["epoch"]) not in logged_epochs:
            metrics = [
                Metric(name, float(value), now_ms, int(row["epoch"]))
                for name, value in row.items()
                if name not in LOGGED_LATER
            ]
            mlflow.log_batch(run_id, metrics=metrics)


def set_status(mlflow: "MlflowClient", run_id: str, status: str) -> None:
    """Set RUNNING, FINISHED or FAILED."""
    if status == "RUNNING":
        mlflow.update_run(run_id, status=status)
    else:
        mlflow.set_terminated(run_id, status=status)


def log_files(mlflow: "MlflowClient", run_id: str, paths: list[Path], folder: str) -> None:
    for path in paths:
        mlflow.log_artifact(run_id, str(path), artifact_path=folder)


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested settings to `a.b` names, as MLflow's parameters take them."""
    pairs: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            pairs |= flat(value, f"{prefix}{name}.")
        else:
            pairs[f"{prefix}{name}"] = value
    return pairs


def _experiment(mlflow: "MlflowClient", name: str) -> str:
    from mlflow.exceptions import MlflowException

    experiment = mlflow.get_experiment_by_name(name)
    if experiment is not None:
        return str(experiment.experiment_id)
    try:
        return str(mlflow.create_experiment(name, tags={"mlflow.experimentKind": KIND}))
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
        return str(mlflow.get_experiment_by_name(name).experiment_id)


def log_figures(mlflow: "MlflowClient", run_id: str, figures: Mapping[str, float]) -> None:
    """Log single figures of a run, at step 0."""
    from mlflow.entities import Metric

    now_ms = int(time.time() * 1000)
    mlflow.log_batch(run_id, metrics=[Metric(name, value, now_ms, 0) for name, value in figures.items()])
