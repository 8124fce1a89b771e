import pytest

from jobs.recipes import RECIPES, recipe
from train.config import TrainConfig


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_can_be_made_and_its_training_settings_survive_json(name: str) -> None:
    made = recipe(name).train
    assert TrainConfig.from_dict(made.as_dict()) == made


def test_an_unknown_recipe_is_named_with_those_there_are() -> None:
    with pytest.raises(KeyError, match=r"nope.*demo"):
        recipe("nope")


def test_sources_are_filled_in_at_run_time() -> None:
    assert recipe("demo").etl_of(("a", "b")).sources == ("a", "b")
