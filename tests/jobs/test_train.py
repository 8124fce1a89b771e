"""Arguments of jobs.train."""

from pathlib import Path

import pytest

from jobs import train
from jobs.runtime import entry


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
