"""Run the tests in three processes side by side, as most of the time is spent waiting: `make test`.

One process takes every folder that starts no platform. Beside it, the folders that start one are taken from a queue,
two at a time, as each platform takes memory. The output of the first process is shown as it comes, that of the others
when all have ended. The exit code is 0 where all passed. An interrupt reaches all that run, and they take down what
they have started. Knows nothing of what is tested.
"""

import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
QUEUE = ("tests/services_training", "tests/services", "tests/end_to_end")
"""Folders that start a platform of their own, the longest first."""
AT_ONCE = 2
"""Platforms at most: three of them fill a small machine's memory."""
LOOK_S = 0.1
NO_TESTS = 5
"""Pytest's exit code where nothing was selected."""


def side_by_side(root: Path, queue: Sequence[str], at_once: int, options: Sequence[str] = ()) -> int:
    """Run pytest over each folder of `queue`, `at_once` of them at a time, and beside these over all other folders.

    Returns:
        0 where all passed, else the exit code of one that did not.
    """
    pytest = [sys.executable, "-m", "pytest", *options]
    waiting = list(queue)
    beside: dict[str, subprocess.Popen[bytes]] = {}
    with tempfile.TemporaryDirectory() as outputs:
        rest = _started([*pytest, *(f"--ignore={folder}" for folder in queue)], root)
        while waiting or any(process.poll() is None for process in (rest, *beside.values())):
            try:
                if waiting and sum(process.poll() is None for process in beside.values()) < at_once:
                    folder = waiting.pop(0)
                    with _output(outputs, folder).open("wb") as file:
                        where = {"stdout": file, "stderr": subprocess.STDOUT}
                        beside[folder] = _started([*pytest, folder], root, **where)
                else:
                    time.sleep(LOOK_S)
            except KeyboardInterrupt:
                waiting.clear()
                for process in (rest, *beside.values()):
                    if process.poll() is None:
                        process.send_signal(signal.SIGINT)
        for folder in beside:
            output = _output(outputs, folder).read_text(errors="replace")
            sys.stdout.write(f"\nBeside it, {folder}:\n{output}")
        sys.stdout.flush()
    codes = [process.returncode for process in (rest, *beside.values())]
    ran = [code for code in codes if code != NO_TESTS]
    return next((code for code in ran if code), 0) if ran else NO_TESTS


def _output(folder: str, tests: str) -> Path:
    return Path(folder) / tests.replace("/", "-")


def _started(command: Sequence[str], root: Path, **where: Any) -> "subprocess.Popen[bytes]":
    """In a session of its own: a terminal's interrupt comes once, from here, and does not cut the taking down short."""
    return subprocess.Popen(command, cwd=root, start_new_session=True, **where)


if __name__ == "__main__":
    sys.exit(side_by_side(ROOT, QUEUE, AT_ONCE, sys.argv[1:]))
