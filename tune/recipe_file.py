"""The winner of a sweep as a file that `python -m jobs.train --config FILE` takes as it is.

It names the run that the trial was, so training finds its checkpoints: what is trained already is only calibrated,
published and registered, and a trial that was cut off goes on. `--fresh` trains it anew.
"""

from typing import Any

import yaml

from train.config import TrainConfig
from tune.sweep_store import Trial


def text(trial: Trial, config: TrainConfig, *, dataset_version: str, recipe: str, summary: str) -> str:
    """Return the YAML file.

    Args:
        config: of the trial.
        recipe: the named recipe that the sweep began with.
        summary: one line on what was tried.
    """
    values: dict[str, Any] = {
        "recipe": recipe,
        "dataset_version": dataset_version,
        "run": trial.run,
        "train": config.as_dict(),
    }
    varied = "".join(f"#   {name}: {value}\n" for name, value in trial.settings.items())
    began = "".join(f"#   {name}: {value}\n" for name, value in trial.began.items())
    return (
        f"# {summary}\n"
        "# Train it: python -m jobs.train --config THIS_FILE (what is trained already is not trained again)\n"
        f"# Trial {trial.number} has\n{varied}"
        + (f"# and began with\n{began}" if began else "")
        + yaml.safe_dump(values, sort_keys=False)
    )
