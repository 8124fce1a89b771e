import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from train.checkpoints.temp_folders import scratch, sweep


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_a_folder_is_there_while_it_is_used_and_gone_afterwards() -> None:
    with scratch() as folder:
        (folder / "file").write_text("x")
        assert sweep() == []
        assert (folder / "file").exists()
    assert not folder.exists()


def test_what_a_killed_process_left_is_removed_and_nothing_else(temporary: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    left = temporary / f"raydiology-train-{ended.pid}-abc"
    others = [temporary / f"raydiology-train-{os.getpid()}-abc", temporary / f"checkpoint-{ended.pid}-abc"]
    for one in (left, *others):
        one.mkdir()
        (one / "file").write_text("x")
    with scratch():
        assert not left.exists()
    assert all((one / "file").exists() for one in others)
