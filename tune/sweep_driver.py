"""What the driver of a sweep knows and writes down: which trial is next, and what each has reached.

Tune asks `Sampler` for trials and tells `SweepDriver` what comes of them; both stand on the sweep_store, which alone
survives. The file that Tune would go on from is never used, and nothing of ours is in it.
"""

import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import ray
import ray.tune
from ray.tune.search import Searcher

from cluster import progress
from train.config import TrainConfig
from train.runs import run_store
from tune import space as spaces
from tune import sweep_store
from tune.config import SweepConfig
from tune.mlflow_trials import MlflowTrials
from tune.suggest import suggest
from tune.sweep_store import State, SweepStore, Trial
from tune.trial import TRIAL, Assignment

logger = logging.getLogger(__name__)

ENDED: dict[str, State] = {
    "complete": "complete",
    "failed": "failed",
    "halted": "unfinished",
    "broke": "unfinished",
}
"""State of a trial by how its driver says that it ended."""


@dataclass(frozen=True, kw_only=True)
class SweepSpec:
    """A search: what is varied, how trials are judged, and from which training settings they start."""

    config: SweepConfig
    train: TrainConfig
    space: spaces.Space
    seed: int


class SweepDriver(ray.tune.Callback):
    def __init__(
        self,
        trial_store: SweepStore,
        spec: SweepSpec,
        mlflow_trials: MlflowTrials,
        close: Callable[[], None],
    ) -> None:
        """Args:
        close: ends all trials with the epoch that they are in.
        """
        self.trial_store = trial_store
        self.spec = spec
        self.touched: set[int] = set()
        """Trials that trained an epoch in this attempt at the sweep."""
        self._mlflow_trials = mlflow_trials
        self._close = close
        self._dropped: set[str] = set()
        self._unfinished = [trial.number for trial in trial_store.trials if trial.state == "unfinished"]

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune writes its parts into a folder of its own

    @property
    def spent(self) -> bool:
        return self.trial_store.cpu_minutes >= self.spec.config.budget_cpu_minutes

    @property
    def done(self) -> bool:
        """Whether nothing is left to run."""
        enough = len(self.trial_store.trials) >= self.spec.config.trials and not self._unfinished
        return self.spent or enough

    def next_trial(self) -> dict[str, Any] | None:
        """Return Tune's configuration of the next trial, unfinished ones first; None when the sweep has enough."""
        if self.spent:
            return None
        if self.spec.config.scheduler == "asha":  # with pbt any trial may go on from any other's weights
            self.drop_weights()
        if self._unfinished:
            return self._tune_config(self.trial_store.trial(self._unfinished.pop(0)))
        if len(self.trial_store.trials) >= self.spec.config.trials:
            return None
        return self._tune_config(self._new())

    def drop_weights(self) -> None:
        """Remove the checkpoints of trials that lost; their rows stay, and trained again they have the same bits."""
        config = self.spec.config
        for name in sweep_store.superseded(self.trial_store.trials, config.metric, config.mode):
            if name not in self._dropped:
                run_store.drop_weights(self.trial_store.store, name)
                self._dropped.add(name)

    def _new(self) -> Trial:
        spec, number = self.spec, len(self.trial_store.trials)
        own = spaces.of(spec.train, spec.space)
        settings = suggest(spec.space, own, self.trial_store.trials, number, spec.config, spec.seed)
        trial = Trial(number=number, run=self.trial_store.sweep.run(number), settings=settings)
        config = spaces.applied(spec.train, settings)
        version = self.trial_store.sweep.dataset_version
        run, _ = run_store.begin(self.trial_store.store, trial.run, config, version, fresh=True)
        trial = replace(trial, mlflow_run_id=self._mlflow_trials.begin(trial, config, run.key))
        self.trial_store.put(trial)
        return trial

    def _tune_config(self, trial: Trial) -> dict[str, Any]:
        assignment = Assignment(
            number=trial.number,
            run=trial.run,
            known_epoch=trial.epochs
            if self.spec.config.scheduler == "pbt"
            else 0,  # ASHA hears all rows again
            mlflow_run_id=trial.mlflow_run_id,
            settings=trial.settings,
        )
        return {TRIAL: asdict(assignment)}

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **_: Any
    ) -> None:
        assignment = result["config"][TRIAL]
        before = self.trial_store.trial(assignment["number"])
        after = self._updated(before, assignment, result)
        if after.rows != before.rows:
            self.touched.add(after.number)
        if after != before:
            self.trial_store.put(after)
            self._report(after)
        if after.state != "unfinished" and before.state == "unfinished":
            self._mlflow_trials.end(after)
        if self.spent:
            self._close()

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        number = trial.config[TRIAL]["number"]
        if self.trial_store.trial(number).state == "unfinished":
            logger.warning("the driver of trial %d died; it goes on when the sweep is run again", number)
            self.trial_store.put(replace(self.trial_store.trial(number), why="its driver died"))

    def _updated(self, trial: Trial, assignment: dict[str, Any], result: dict[str, Any]) -> Trial:
        """Return the trial with the epoch that Tune reports added."""
        if trial.run != assignment["run"]:
            trial = replace(
                trial,
                run=assignment["run"],
                settings=assignment["settings"],
                began=trial.began or trial.settings,
                left=[*trial.left, trial.run],
            )
        if "row" in result:
            trial = self._with_row(trial, result["row"])
        if "attempt" in result:
            trial = replace(trial, cpu_s={**trial.cpu_s, result["attempt"]: result["cpu_s"]})
        if "ending" in result:
            return replace(trial, state=ENDED[result["ending"]], why=result.get("why", ""))
        return replace(trial, state="stopped") if result["done"] else trial

    def _with_row(self, trial: Trial, row: dict[str, float]) -> Trial:
        known = [{**earlier, "nth": None} for earlier in trial.rows]
        if {**row, "nth": None} in known:
            return trial  # ASHA gets known rows again after a restart
        return trial.with_row({**row, "nth": self.trial_store.next_nth})

    def _report(self, trial: Trial) -> None:
        config = self.spec.config
        over = sum(other.state != "unfinished" for other in self.trial_store.trials)
        value = trial.value(config.metric)
        note = (
            f"trial {trial.number}: {trial.state if trial.state != 'unfinished' else f'epoch {trial.epochs}'}"
        )
        note += "" if value is None else f", {config.metric} {value:.3f}"
        note += f"; {self.trial_store.cpu_minutes:.1f} of {config.budget_cpu_minutes:g} CPU-minutes"
        progress.report("tune", min(over, config.trials), config.trials, note)


class Sampler(Searcher):
    """Hands Ray Tune the trials that the driver chooses."""

    def __init__(self, driver: SweepDriver) -> None:
        super().__init__(metric=driver.spec.config.metric, mode=driver.spec.config.mode)
        self._driver = driver

    def suggest(self, trial_id: str) -> dict[str, Any] | str:
        return self._driver.next_trial() or Searcher.FINISHED

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Do nothing: `SweepDriver` has the result already."""

    def save(self, checkpoint_path: str) -> None:
        """Do nothing: a sweep continues from its `SweepStore`."""

    def restore(self, checkpoint_path: str) -> None:
        """Do nothing: see `save`."""
