"""A sweep in MLflow: a run of its own, and below it a run for each trial, which is that of the trial's training.

A sweep does not begin while MLflow is down. When it goes down later, trials go on; what it missed is added at the end.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from train.config import TrainConfig
from train.tracking import mlflow_runs
from tune.sweep_store import Sweep, Trial

if TYPE_CHECKING:
    from mlflow import MlflowClient

STATUS = {"complete": "FINISHED", "stopped": "FINISHED", "failed": "FAILED", "unfinished": "KILLED"}
STATE_TAG = "raydiology.trial"

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class MlflowTrials:
    mlflow: "MlflowClient"
    parent: str
    """Id of the sweep's run."""
    provenance: Mapping[str, Any]
    """Further parameters of every trial: dataset version, git commit."""

    @classmethod
    def open(
        cls, tracking_uri: str, sweep: Sweep, params: Mapping[str, Any], provenance: Mapping[str, Any]
    ) -> "MlflowTrials":
        """Open the sweep's run, which the first call makes.

        Raises:
            TrackingError: MLflow does not answer.
        """
        mlflow = mlflow_runs.client(tracking_uri)
        parent = mlflow_runs.start_run(mlflow, sweep.key, sweep.name, {**params, **provenance})
        with mlflow_runs.answering(mlflow):
            mlflow_runs.set_status(mlflow, parent, "RUNNING")
        return cls(mlflow=mlflow, parent=parent, provenance=provenance)

    def begin(self, trial: Trial, config: TrainConfig, run_key: str) -> str | None:
        """Start a trial's run; returns its id, or None where MLflow does not answer."""
        try:
            return self._begin(trial, config, run_key)
        except mlflow_runs.TrackingError as error:
            logger.warning("trial %d is in MLflow only at the end: %s", trial.number, error)
            return None

    def _begin(self, trial: Trial, config: TrainConfig, run_key: str) -> str:
        params = mlflow_runs.flat(config.as_dict()) | {**self.provenance, "trial": trial.number}
        return mlflow_runs.start_run(self.mlflow, run_key, trial.run, params, parent=self.parent)

    def end(self, trial: Trial) -> None:
        """Set how a trial ended, if MLflow answers."""
        try:
            self._end(trial)
        except mlflow_runs.TrackingError as error:
            logger.warning("how trial %d ended is in MLflow only at the end: %s", trial.number, error)

    def _end(self, trial: Trial) -> None:
        if trial.mlflow_run_id is not None:
            with mlflow_runs.answering(self.mlflow):
                self.mlflow.set_tag(trial.mlflow_run_id, STATE_TAG, trial.state)
                mlflow_runs.set_status(self.mlflow, trial.mlflow_run_id, STATUS[trial.state])

    def catch_up(self, trial: Trial, config: TrainConfig, run_key: str) -> str:
        """Add what MLflow missed of a trial; returns the id of its run.

        Raises:
            TrackingError: MLflow does not answer.
        """
        run_id = trial.mlflow_run_id or self._begin(trial, config, run_key)
        rows = [{name: value for name, value in row.items() if name != "nth"} for row in trial.rows]
        with mlflow_runs.answering(self.mlflow):
            mlflow_runs.log_rows(self.mlflow, run_id, rows)
            self.mlflow.set_tag(run_id, STATE_TAG, trial.state)
            mlflow_runs.set_status(self.mlflow, run_id, STATUS[trial.state])
        return run_id

    def fail(self) -> None:
        """Mark the sweep as failed.

        Raises:
            TrackingError: MLflow does not answer.
        """
        with mlflow_runs.answering(self.mlflow):
            mlflow_runs.set_status(self.mlflow, self.parent, "FAILED")

    def finish(self, figures: Mapping[str, float], files: Sequence[Path]) -> None:
        """Log what the sweep found.

        Raises:
            TrackingError: MLflow does not answer.
        """
        with mlflow_runs.answering(self.mlflow):
            mlflow_runs.log_figures(self.mlflow, self.parent, figures)
            mlflow_runs.log_files(self.mlflow, self.parent, list(files), "sweep")
            mlflow_runs.set_status(self.mlflow, self.parent, "FINISHED")
