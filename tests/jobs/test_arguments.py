"""What `jobs.ingest`, `jobs.etl` and `jobs.train` are told on the command line."""

import pytest

from jobs import etl, train
from jobs.recipes import RECIPES, recipe
from jobs.runtime import entry


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_fills_the_arguments_of_a_job(name: str) -> None:
    told = entry.parse(
        train.Arguments, "train", ["--recipe", name], lambda name: {"train": recipe(name).train}
    )
    assert told.train == recipe(name).train
    made = entry.parse(
        etl.Arguments,
        "etl",
        ["--recipe", name],
        lambda name: {"etl": recipe(name).etl, "validation": recipe(name).validation},
    )
    assert (made.etl, made.validation) == (recipe(name).etl, recipe(name).validation)
