"""What the driver of a sweep knows and writes down: which trial is next, and what each has reached.

Tune asks `Suggester` for trials and tells `Keeper` what comes of them; both stand on the sweep_store, which alone
survives. The file that Tune would go on from is never used, and nothing of ours is in it.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import ray
import ray.tune
from ray.tune.search import Searcher

from cluster import progress
from train import runs
from train.config import TrainConfig
from tune import space as spaces
from tune import sweep_store
from tune.config import SweepConfig
from tune.mlflow_trials import Nested
from tune.suggest import suggest
from tune.sweep_store import Ledger, State, Trial
from tune.trial import TRIAL

logger = logging.getLogger(__name__)

ENDED: dict[str, State] = {
    "complete": "complete",
    "failed": "failed",
    "halted": "unfinished",
    "broke": "unfinished",
}
"""State of a trial by how its driver says that it ended."""


@dataclass(frozen=True, kw_only=True)
class Question:
    """What is looked for."""

    config: SweepConfig
    train: TrainConfig
    space: spaces.Space
    seed: int


class Keeper(ray.tune.Callback):
    def __init__(self, book: Ledger, question: Question, nested: Nested, close: Callable[[], None]) -> None:
        """Args:
        close: ends all trials with the epoch that they are in.
        """
        self.ledger = book
        self.question = question
        self.touched: set[int] = set()
        """Trials that trained an epoch in this attempt at the sweep."""
        self._nested = nested
        self._close = close
        self._dropped: set[str] = set()
        self._unfinished = [one.number for one in book.trials if one.state == "unfinished"]

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune writes its parts into a folder of its own

    @property
    def spent(self) -> bool:
        return self.ledger.cpu_minutes >= self.question.config.budget_cpu_minutes

    @property
    def done(self) -> bool:
        """Whether there is nothing to run."""
        enough = len(self.ledger.trials) >= self.question.config.trials and not self._unfinished
        return self.spent or enough

    def next_trial(self) -> dict[str, Any] | None:
        """Tune's configuration of the next trial: first those to go on with, then new ones; None when it is enough."""
        if self.spent:
            return None
        if self.question.config.scheduler == "asha":  # with pbt any trial may go on from any other's weights
            self.drop_weights()
        if self._unfinished:
            return self._tune_config(self.ledger.trial(self._unfinished.pop(0)))
        if len(self.ledger.trials) >= self.question.config.trials:
            return None
        return self._tune_config(self._new())

    def drop_weights(self) -> None:
        """Remove the checkpoints of trials that lost; their rows stay, and trained again they have the same bits."""
        config = self.question.config
        for name in sweep_store.superseded(self.ledger.trials, config.metric, config.mode):
            if name not in self._dropped:
                runs.drop_weights(self.ledger.store, name)
                self._dropped.add(name)

    def _new(self) -> Trial:
        asked, number = self.question, len(self.ledger.trials)
        own = spaces.of(asked.train, asked.space)
        settings = suggest(asked.space, own, self.ledger.trials, number, asked.config, asked.seed)
        trial = Trial(number=number, run=self.ledger.sweep.run(number), settings=settings)
        config = spaces.applied(asked.train, settings)
        version = self.ledger.sweep.dataset_version
        run, _ = runs.begin(self.ledger.store, trial.run, config, version, fresh=True)
        trial = replace(trial, mlflow_run_id=self._nested.begin(trial, config, run.key))
        self.ledger.put(trial)
        return trial

    def _tune_config(self, trial: Trial) -> dict[str, Any]:
        known = trial.epochs if self.question.config.scheduler == "pbt" else 0  # ASHA hears all rows again
        assignment = {
            "number": trial.number,
            "run": trial.run,
            "known_epoch": known,
            "mlflow_run_id": trial.mlflow_run_id,
            "settings": trial.settings,
        }
        return {TRIAL: assignment}

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **_: Any
    ) -> None:
        assignment = result["config"][TRIAL]
        before = self.ledger.trial(assignment["number"])
        after = self._heard(before, assignment, result)
        if after.rows != before.rows:
            self.touched.add(after.number)
        if after != before:
            self.ledger.put(after)
            self._tell(after)
        if after.state != "unfinished" and before.state == "unfinished":
            self._nested.end(after)
        if self.spent:
            self._close()

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        number = trial.config[TRIAL]["number"]
        if self.ledger.trial(number).state == "unfinished":
            logger.warning("the driver of trial %d died; it goes on when the sweep is run again", number)
            self.ledger.put(replace(self.ledger.trial(number), why="its driver died"))

    def _heard(self, trial: Trial, assignment: dict[str, Any], result: dict[str, Any]) -> Trial:
        """The trial after what Tune was told."""
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
        known = [{**one, "nth": None} for one in trial.rows]
        if {**row, "nth": None} in known:
            return trial  # told again
        return trial.with_row({**row, "nth": self.ledger.next_nth})

    def _tell(self, trial: Trial) -> None:
        config = self.question.config
        over = sum(one.state != "unfinished" for one in self.ledger.trials)
        value = trial.value(config.metric)
        note = (
            f"trial {trial.number}: {trial.state if trial.state != 'unfinished' else f'epoch {trial.epochs}'}"
        )
        note += "" if value is None else f", {config.metric} {value:.3f}"
        note += f"; {self.ledger.cpu_minutes:.1f} of {config.budget_cpu_minutes:g} CPU-minutes"
        progress.report("tune", min(over, config.trials), config.trials, note)


class Suggester(Searcher):
    """Tune's question for the next trial, answered by the keeper."""

    def __init__(self, keeper: Keeper) -> None:
        super().__init__(metric=keeper.question.config.metric, mode=keeper.question.config.mode)
        self._keeper = keeper

    def suggest(self, trial_id: str) -> dict[str, Any] | str:
        return self._keeper.next_trial() or Searcher.FINISHED

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """The keeper has heard of it."""

    def save(self, checkpoint_path: str) -> None:
        """The ledger is what a sweep goes on from."""

    def restore(self, checkpoint_path: str) -> None:
        """Never called: see `save`."""
