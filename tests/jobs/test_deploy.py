"""What `jobs.deploy` is told on the command line."""

from typing import Any

import pytest

from jobs.deploy import Arguments
from jobs.runtime import entry


def test_a_stage_is_one_of_the_four() -> None:
    told = entry.parse(Arguments, "deploy", ["--version", "7", "--stage", "canary"])
    assert (told.version, told.stage, told.end) == ("7", "canary", False)
    with pytest.raises(entry.ArgumentsError):
        entry.parse(Arguments, "deploy", ["--version", "7", "--stage", "moon"])


@pytest.mark.parametrize(
    "wrong", [{"stage": "staging"}, {"end": True}, {"version": "7", "restore": True, "end": True}]
)
def test_a_stage_needs_a_version(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="take a --version, and no --restore"):
        Arguments(**wrong)


def test_a_version_is_brought_to_a_stage_or_taken_out_of_one() -> None:
    with pytest.raises(ValueError, match="exclude each other"):
        Arguments(version="7", stage="staging", end=True)
