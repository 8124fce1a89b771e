import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from jobs.recipes import RECIPES, recipe
from train.config import TrainConfig
from tune import space as spaces
from tune.space import Choice, Range, SpaceError

BASE = TrainConfig()
DOCS = Path(__file__).resolve().parents[2] / "docs/tuning.md"


def test_a_space_is_read_from_yaml_as_people_write_it(tmp_path: Path) -> None:
    written = tmp_path / "space.yaml"
    written.write_text(
        "optim.learning_rate: {low: 1e-4, high: 1e-2, log: true}\n"
        "batch_size: {choices: [16, 32]}\n"
        "model.drop_path_rate: {low: 0, high: 0.3}\n"
    )
    space = spaces.read(written)
    assert space["optim.learning_rate"] == Range(low=1e-4, high=1e-2, log=True)
    assert space["batch_size"] == Choice(choices=(16, 32))
    assert spaces.parse(spaces.described(space)) == space


@pytest.mark.parametrize(
    ("described", "why"),
    [
        ({"optim.learnin_rate": {"low": 1, "high": 2}}, "did you mean optim.learning_rate?"),
        (
            {"learning_rate": {"low": 1, "high": 2}},
            "there is no setting learning_rate: did you mean optim.learning_rate?",
        ),
        ({"num_workers": {"choices": [1, 2]}}, "says how much machine is used"),
        ({"epochs": {"low": 1, "high": 9}}, "epochs cannot be searched: all trials have the same"),
        ({"model.kwargs": {"choices": [1]}}, "it is a dictionary"),
        (
            {"optim.learning_rate": {"low": 2, "high": 1}},
            "low of optim.learning_rate has to be below its high",
        ),
        ({"optim.learning_rate": {"low": 0, "high": 1, "log": True}}, "its low has to be positive"),
        ({"optim.learning_rate": {"low": "a", "high": 1}}, "takes numbers, got 'a'"),
        ({"optim.learning_rate": {"low": 0, "high": float("inf")}}, "takes numbers, got inf"),
        ({"optim.learning_rate": {"low": 0, "hihg": 1}}, "takes {low, high}"),
        ({"optim.learning_rate": [1, 2]}, "takes {low, high}"),
        ({"batch_size": {"low": 16, "high": 32.5}}, "takes whole numbers, got 32.5"),
        ({"augment.horizontal_flip": {"low": 0, "high": 1}}, "is no number: give it {choices"),
        ({"augment.horizontal_flip": {"choices": [1]}}, "1 is no value of augment.horizontal_flip"),
        ({"batch_size": {"choices": []}}, "at least one value"),
        ({}, "at least one line"),
        ("a string", "at least one line"),
    ],
)
def test_what_is_wrong_with_a_space_is_one_line_that_names_it(described: Any, why: str) -> None:
    with pytest.raises(SpaceError, match=re.escape(why)) as caught:
        spaces.parse(described)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("described", "why"),
    [
        ({"optim.learning_rate": {"low": -1, "high": 1}}, "must be positive, got -1"),
        ({"label_smoothing": {"low": 0, "high": 1}}, "label_smoothing = 1.0 cannot be trained"),
        ({"batch_size": {"low": 1, "high": 8}}, "num_workers 2 is more than the batch_size 1"),
        ({"strategy": {"choices": ["ddp", "horovod"]}}, "strategy is one of ddp, fsdp, deepspeed"),
    ],
)
def test_a_corner_that_cannot_be_trained_is_found_before_anything_runs(described: Any, why: str) -> None:
    with pytest.raises(SpaceError, match=re.escape(why)):
        spaces.check(BASE, spaces.parse(described))


def test_a_whole_number_in_the_middle_of_a_range_is_tried_too() -> None:
    base = spaces.applied(BASE, {"microbatch_size": 16})
    with pytest.raises(SpaceError, match="batch_size = 33 cannot be trained"):
        spaces.check(base, spaces.parse({"batch_size": {"low": 32, "high": 64}}))


def test_two_settings_that_do_not_go_together_are_found() -> None:
    base = spaces.applied(BASE, {"use_gpu": True, "compile": True})
    space = spaces.parse({"strategy": {"choices": ["fsdp", "deepspeed"]}, "zero_stage": {"choices": [2, 3]}})
    with pytest.raises(SpaceError, match="strategy = deepspeed, zero_stage = 3 cannot be trained: compile"):
        spaces.check(base, space)


@pytest.mark.parametrize("name", RECIPES)
def test_the_default_space_can_be_trained_from_every_recipe(name: str) -> None:
    spaces.check(recipe(name).train, spaces.parse(spaces.DEFAULT))


def test_a_trial_s_values_go_where_their_names_say_and_the_rest_stays() -> None:
    made = spaces.applied(BASE, {"optim.learning_rate": 0.5, "batch_size": 8})
    assert (made.optim.learning_rate, made.batch_size) == (0.5, 8)
    assert spaces.of(made, spaces.parse({"batch_size": {"choices": [8]}})) == {"batch_size": 8}
    assert (
        spaces.applied(made, spaces.of(BASE, {"optim.learning_rate": Range(low=0, high=1)})).batch_size == 8
    )


def test_only_what_no_tensor_depends_on_may_change_within_a_run() -> None:
    every = spaces.parse(
        spaces.DEFAULT | {"ema_decay": {"choices": [0, 0.9]}, "batch_size": {"choices": [8, 16]}}
    )
    assert set(every) - set(spaces.within_a_run(every)) == {"model.drop_path_rate", "ema_decay", "batch_size"}


def test_the_space_in_the_docs_is_the_default_one() -> None:
    written = DOCS.read_text().split("```yaml\n")[1].split("```")[0]
    assert spaces.parse(yaml.safe_load(written)) == spaces.parse(spaces.DEFAULT)
