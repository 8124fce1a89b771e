"""What a pipeline shows where its output is no terminal, and what it writes to its log."""

from pathlib import Path

import pytest

from jobs.runtime.console import Console


def test_a_stage_is_shown_when_it_begins_and_ends_and_logged_each_time(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Console(tmp_path / "logs" / "demo.log") as console:
        for done in range(4):
            console.stage("etl", done, 3, f"block {done}")
    shown = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in shown] == ["0/3", "3/3"]
    logged = (tmp_path / "logs" / "demo.log").read_text().splitlines()
    assert logged == [f"[etl] {done}/3 block {done}" for done in range(4)]


def test_a_line_is_shown_as_it_is_and_logged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Console(tmp_path / "demo.log") as console:
        console.say("[bold] is no markup")
        console.table("Answers", ("image", "truth"), [("a1", "normal")])
    assert (tmp_path / "demo.log").read_text() == "[bold] is no markup\n"
    shown = capsys.readouterr().out
    assert "[bold] is no markup" in shown
    assert "normal" in shown
