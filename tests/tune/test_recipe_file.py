"""The winner's file is read by the parser of `jobs.train` itself."""

from pathlib import Path

import pytest

from jobs import train
from jobs.recipes import RECIPES, recipe
from jobs.runtime import entry
from tune import recipe_file
from tune import space as spaces
from tune.sweep_store import Trial

SETTINGS = {"optim.learning_rate": 1.2345678901234567e-05, "class_balance": 0.25, "batch_size": 512}


@pytest.mark.parametrize("name", RECIPES)
def test_jobs_train_takes_the_file_as_it_is(name: str, tmp_path: Path) -> None:
    config = spaces.applied(recipe(name).train, SETTINGS)
    trial = Trial(number=7, run="s-g001-t007", settings=SETTINGS, began={"class_balance": 0.5})
    file = tmp_path / "winner.yaml"
    file.write_text(
        recipe_file.text(trial, config, dataset_version="0123456789abcdef", recipe=name, summary="The best.")
    )
    told = entry.parse(
        train.Arguments, "train", ["--config", str(file)], lambda chosen: {"train": recipe(chosen).train}
    )
    assert told.train == config
    assert told.train.fingerprint == config.fingerprint
    assert (told.run, told.dataset_version, told.recipe) == ("s-g001-t007", "0123456789abcdef", name)


def test_what_follows_the_file_on_the_command_line_wins(tmp_path: Path) -> None:
    config = recipe("demo").train
    file = tmp_path / "winner.yaml"
    trial = Trial(number=0, run="s-g001-t000", settings={})
    file.write_text(
        recipe_file.text(trial, config, dataset_version="1" * 16, recipe="demo", summary="The best.")
    )
    argv = ["--config", str(file), "--run", "mine", "--train.epochs", "3"]
    told = entry.parse(train.Arguments, "train", argv, lambda chosen: {"train": recipe(chosen).train})
    assert (told.run, told.train.epochs, told.dataset_version) == ("mine", 3, "1" * 16)
