"""`make test` in small: three folders with a test or two each."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
START = """
import signal, sys
from pathlib import Path
from tests.side_by_side import side_by_side
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where a shell runs the suite in the background
sys.exit(side_by_side(Path(sys.argv[1]), ["other", "after"], int(sys.argv[2]), sys.argv[3:]))
"""
PASSES, FAILS = "def test_{0}(): print('{0} said')\n", "def test_{0}(): assert '{0}' == 'right'\n"
WAITS = """
import time
from pathlib import Path
import pytest
@pytest.fixture
def server():
    yield
    Path("{0}-is-down").touch()
def test_{0}(server):
    Path("{0}-is-up").touch()
    time.sleep(60)
"""


def write(root: Path, first: str, other: str, after: str = PASSES) -> None:
    for name, text in (("first", first), ("other", other), ("after", after)):
        (root / name).mkdir()
        (root / name / f"test_{name}.py").write_text(text.format(name))


def start(root: Path, *options: str, at_once: int = 1) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", START, str(root), str(at_once), "-p", "no:cacheprovider", *options],
        cwd=ROOT,
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},  # starts in a third of the time
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


@pytest.mark.parametrize(
    ("first", "other", "after", "code"),
    [
        (PASSES, PASSES, PASSES, 0),
        (FAILS, PASSES, PASSES, 1),
        (PASSES, FAILS, PASSES, 1),
        (PASSES, PASSES, FAILS, 1),
        (FAILS, FAILS, FAILS, 1),
        (PASSES, "import no_such", PASSES, 2),
    ],
    ids=[
        "all pass",
        "the first fails",
        "the other fails",
        "the last fails",
        "all fail",
        "one cannot be read",
    ],
)
def test_it_passes_where_all_do_and_shows_what_each_said(
    tmp_path: Path, first: str, other: str, after: str, code: int
) -> None:
    write(tmp_path, first, other, after)
    run = start(tmp_path)
    said, _ = run.communicate(timeout=120)
    assert run.returncode == code, said
    assert said.count("test session starts") == 3
    words = (
        "first/test_first.py",
        "Beside it, other:",
        "other/test_other.py",
        "Beside it, after:",
        "after/test_after.py",
    )
    places = [said.index(one) for one in words]
    assert places == sorted(places)


def test_a_part_in_which_nothing_is_selected_is_no_failure_but_all_are(tmp_path: Path) -> None:
    write(tmp_path, PASSES, PASSES)
    codes = []
    for words in ("test_first", "neither"):
        run = start(tmp_path, "-k", words)
        run.communicate(timeout=120)
        codes.append(run.returncode)
    assert codes == [0, 5]


@pytest.mark.parametrize(("at_once", "beside"), [(1, {"other"}), (2, {"other", "after"})])
@pytest.mark.parametrize("from_terminal", [True, False])
def test_an_interrupt_takes_down_what_runs_and_what_waits_is_never_started(
    tmp_path: Path, from_terminal: bool, at_once: int, beside: set[str]
) -> None:
    """A terminal tells all processes, a program that sends a signal tells the one that it knows."""
    write(tmp_path, WAITS, WAITS, WAITS)
    run = start(tmp_path, at_once=at_once)
    until_s = time.monotonic() + 60
    while not all((tmp_path / f"{name}-is-up").exists() for name in {"first", *beside}):
        assert time.monotonic() < until_s
        time.sleep(0.05)
    (os.killpg if from_terminal else os.kill)(run.pid, signal.SIGINT)
    said, _ = run.communicate(timeout=60)
    assert run.returncode == 2, said
    started = {"first", *beside}
    assert {path.name for path in tmp_path.glob("*-is-*")} == {
        f"{name}-is-{state}" for name in started for state in ("up", "down")
    }
