from pathlib import Path

import pytest
import torch

from data.taxonomy import taxonomy
from jobs.recipes import RECIPES, recipe
from train.config import TrainConfig
from train.strategies.memory_estimate import estimate
from train.vit.model import build_vit, parameter_groups

DOCS = Path(__file__).resolve().parents[2] / "docs/training.md"
LADDER = [name for name in RECIPES if name.startswith("vit_")]
A100_GIB = 40


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_can_be_made_and_its_training_settings_survive_json(name: str) -> None:
    made = recipe(name).train
    assert TrainConfig.from_dict(made.as_dict()) == made


def test_an_unknown_recipe_is_named_with_those_there_are() -> None:
    with pytest.raises(KeyError, match=r"nope.*demo"):
        recipe("nope")


def test_sources_are_filled_in_at_run_time() -> None:
    assert recipe("demo").etl_of(("a", "b")).sources == ("a", "b")


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_s_model_is_one_of_timm_s_and_takes_its_side(name: str) -> None:
    made = recipe(name)
    with torch.device("meta"):
        model = build_vit(made.train.model, classes=10, side=made.etl.pixels.side)
        side = made.etl.pixels.side
        assert model(torch.zeros(2, 1, side, side)).shape == (2, 10)
    groups = parameter_groups(model, made.train.optim)
    assert sum(len(one["params"]) for one in groups) == len(list(model.parameters()))


@pytest.mark.parametrize("name", RECIPES)
def test_a_global_batch_is_microbatch_times_accumulation_times_workers(name: str) -> None:
    made = recipe(name).train
    if made.microbatch_size:
        assert made.microbatch_size * made.accumulation() * made.num_workers == made.batch_size
    else:
        assert made.accumulation() == 1


def test_the_ladder_goes_from_a_cpu_to_vit_large_at_384_on_four_gpus() -> None:
    bottom, top = recipe(LADDER[0]), recipe("vit_large")
    assert (bottom.train.use_gpu, bottom.train.num_workers, bottom.train.model.start) == (False, 2, "scratch")
    assert (top.etl.pixels.side, top.train.num_workers, top.train.use_gpu) == (384, 4, True)
    assert (top.train.strategy, top.train.precision, top.train.compile) == ("fsdp", "bfloat16", True)
    assert top.train.accumulation() == 4
    sizes = [estimate(recipe(name).train, classes=10, side=64).parameters for name in LADDER[:4]]
    assert sizes == sorted(sizes)


def ladder_row(name: str) -> str:
    made = recipe(name)
    train, side = made.train, made.etl.pixels.side
    found = estimate(train, classes=len(taxonomy().names), side=side)
    held = found.weights + found.gradients + found.moments + found.average
    cells = (
        f"`{name}`",
        f"{train.model.name} at {side}",
        f"{found.parameters:,}",
        f"{train.strategy}, {train.num_workers} {'GPU' if train.use_gpu else 'CPU'}",
        f"{train.batch_size} = {train.microbatch_size} x {train.accumulation()} x {train.num_workers}",
        f"{held / 2**30:.2f}",
        f"{found.gathered / 2**30:.2f}",
        f"{found.activations / 2**30:.2f}",
        f"{found.device / 2**30:.2f}",
    )
    return f"| {' | '.join(cells)} |"


@pytest.mark.parametrize("name", LADDER)
def test_the_documented_sizes_are_those_of_the_recipes(name: str) -> None:
    assert ladder_row(name) in DOCS.read_text().splitlines(), ladder_row(name)


@pytest.mark.parametrize("name", LADDER)
def test_every_rung_fits_into_the_smaller_a100(name: str) -> None:
    made = recipe(name)
    found = estimate(made.train, classes=10, side=made.etl.pixels.side)
    assert found.device < 0.8 * A100_GIB * 2**30
