"""What `jobs.ingest`, `jobs.etl` and `jobs.train` are told on the command line."""

from pathlib import Path

import pytest

from data.validation.config import LICENSES
from jobs import etl, ingest, train
from jobs.recipes import RECIPES, recipe
from jobs.runtime import entry


def test_the_quarantine_is_asked_with_switches_and_numbers() -> None:
    asked = entry.parse(ingest.Arguments, "ingest", ["--report", "--details"])
    assert (asked.report, asked.details, asked.release) == (True, True, None)
    released = entry.parse(ingest.Arguments, "ingest", ["--release", "17", "--label", "normal", "--by", "A"])
    assert (released.release, released.label, released.by) == (17, "normal", "A")


def test_a_patient_s_id_is_taken_as_it_is_written() -> None:
    for written in ("-", "007", "1e3", "null-7", "true"):
        assert entry.parse(ingest.Arguments, "ingest", ["--forget", written]).forget == written


def test_two_wishes_at_once_are_refused_in_one_line() -> None:
    with pytest.raises(ValueError, match="exclude each other: give one"):
        entry.parse(ingest.Arguments, "ingest", ["--forget", "7", "--reject", "3"])


def test_validation_is_on_and_its_limits_can_be_given() -> None:
    plain = entry.parse(etl.Arguments, "etl", [])
    assert plain.validate is True
    assert plain.validation.licenses == LICENSES
    told = entry.parse(
        etl.Arguments, "etl", ["--validate", "false", "--validation.allow_unlicensed", "false"]
    )
    assert (told.validate, told.validation.allow_unlicensed) == (False, False)


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


def test_a_value_that_is_no_choice_is_answered_with_the_choices() -> None:
    with pytest.raises(entry.ArgumentsError, match=r"train\.strategy is one of {ddp,fsdp,deepspeed}"):
        entry.parse(train.Arguments, "train", ["--train.strategy", "horovod"])


def test_an_unknown_key_of_a_settings_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("train:\n  epochz: 3\n")
    with pytest.raises(entry.ArgumentsError, match="'epochz'"):
        entry.parse(train.Arguments, "train", ["--config", str(tmp_path / "run.yaml")])


def test_settings_that_do_not_go_together_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match="cpu_offload does not go with strategy ddp"):
        entry.parse(train.Arguments, "train", ["--train.strategy", "ddp", "--train.cpu_offload", "true"])
