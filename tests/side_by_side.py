"""Run the tests in several processes, some folders each, as most of the time is spent waiting: `make test`.

What the first says is shown as it comes, what the others say when all have ended. The exit code is 0 where all passed.
An interrupt reaches all, and all take down what they have started. Knows nothing of what is tested.
"""

import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
BESIDE = ("tests/services", "tests/services/training")
"""Each folder has a process, and in it a platform of its own; a folder within another is not part of that."""
NO_TESTS = 5
"""Pytest's exit code where nothing was selected."""


def side_by_side(root: Path, folders: Sequence[str], options: Sequence[str] = ()) -> int:
    """Run pytest over each of `folders`, and beside them over all that it is configured to test but these.

    Returns:
        0 where all passed, else the exit code of one that did not.
    """
    with ExitStack() as files:
        said = [files.enter_context(tempfile.TemporaryFile()) for _ in folders]
        running = [_started(_pytest(folders, options), root)]
        for folder, its in zip(folders, said, strict=True):
            others = [one for one in folders if one != folder]
            command = [*_pytest(others, options), folder]
            running.append(_started(command, root, stdout=its, stderr=subprocess.STDOUT))
        codes = _ended(running)
        for folder, its in zip(folders, said, strict=True):
            its.seek(0)
            sys.stdout.write(f"\nBeside it, {folder}:\n{its.read().decode(errors='replace')}")
        sys.stdout.flush()
    ran = [code for code in codes if code != NO_TESTS]
    return next((code for code in ran if code), 0) if ran else NO_TESTS


def _pytest(ignored: Sequence[str], options: Sequence[str]) -> list[str]:
    return [sys.executable, "-m", "pytest", *options, *(f"--ignore={one}" for one in ignored)]


def _started(command: Sequence[str], root: Path, **where: Any) -> "subprocess.Popen[bytes]":
    """In a session of its own: a terminal's interrupt comes once, from here, and does not cut the taking down short."""
    return subprocess.Popen(command, cwd=root, start_new_session=True, **where)


def _ended(running: Sequence["subprocess.Popen[bytes]"]) -> list[int]:
    """The exit codes; an interrupt is passed on, and what it ends is waited for."""
    while True:
        try:
            return [one.wait() for one in running]
        except KeyboardInterrupt:
            for one in running:
                if one.poll() is None:
                    one.send_signal(signal.SIGINT)


if __name__ == "__main__":
    sys.exit(side_by_side(ROOT, BESIDE, sys.argv[1:]))
