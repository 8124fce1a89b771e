"""A wrong argument ends every job the same way: exit code 2, one line that says why, and the JSON line last."""

import json
import sys
from typing import Any

import pytest

from jobs import finetune_llm, kill_train, tune
from jobs.drill import job as drill
from jobs.load_test import job as load_test
from jobs.runtime import entry


@pytest.mark.parametrize(
    ("job", "module", "argv", "error"),
    [
        ("load_test", load_test, ["--rate", "0"], "--rate takes requests a second above 0"),
        ("load_test", load_test, ["--rate", "nan"], "nan"),
        ("load_test", load_test, ["--rate", "many"], "rate"),
        ("tune", tune, ["--trials", "0"], "trials must be at least 1, got 0"),
        ("finetune_llm", finetune_llm, ["--pairs", "0"], "pairs must be at least 1, got 0"),
        ("drill", drill, ["--cases", "[nope]"], "there is no case nope"),
        ("drill", drill, ["--rate", "nan"], "nan"),
        ("kill_train", kill_train, ["--kills", "0"], "--kills must be at least 1, got 0"),
        ("kill_train", kill_train, ["--victims", "2"], "--victims"),
    ],
)
def test_a_wrong_argument_ends_with_2_and_a_line_of_json(
    job: str,
    module: Any,
    argv: list[str],
    error: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", [job, *argv])
    with pytest.raises(SystemExit) as stopped:
        entry.main(job, module.Arguments, lambda arguments: pytest.fail(f"the job began with {arguments}"))
    line = json.loads(capsys.readouterr().out)
    assert stopped.value.code == 2
    assert (line["job"], line["status"]) == (job, "failed")
    assert error in line["error"]
