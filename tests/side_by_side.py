"""Run the tests in two processes, one half of the folders each, as most of the time is spent waiting: `make test`.

What the first half says is shown as it comes, what the second says when both have ended. The exit code is 0 where both
passed. An interrupt reaches both, and both take down what they have started. Knows nothing of what is tested.
"""

import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
BESIDE = ("tests/services",)
"""Folders of the second half, which starts the embedded platform; the first has all others, and one of its own."""
NO_TESTS = 5
"""Pytest's exit code where nothing was selected."""


def side_by_side(root: Path, folders: Sequence[str], options: Sequence[str] = ()) -> int:
    """Run pytest over `folders`, and beside it over all that it is configured to test but these.

    Returns:
        0 where both passed, else the exit code of one that did not.
    """
    pytest = [sys.executable, "-m", "pytest", *options]
    with tempfile.TemporaryFile() as said:
        running = [
            _started([*pytest, *(f"--ignore={one}" for one in folders)], root),
            _started([*pytest, *folders], root, stdout=said, stderr=subprocess.STDOUT),
        ]
        codes = _ended(running)
        said.seek(0)
        sys.stdout.write(f"\nBeside it, {', '.join(folders)}:\n{said.read().decode(errors='replace')}")
        sys.stdout.flush()
    ran = [code for code in codes if code != NO_TESTS]
    return next((code for code in ran if code), 0) if ran else NO_TESTS


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
