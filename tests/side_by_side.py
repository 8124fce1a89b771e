"""Run the tests in two processes side by side, as most of the time is spent waiting: `make test`.

One has some folders, the other all the rest but for one folder, which comes where first a process ends: each has a
platform of its own, and three of them fill a small machine's memory. What the rest says is shown as it comes, what the
others say when all have ended. The exit code is 0 where all passed. An interrupt reaches all that run, and they take
down what they have started. Knows nothing of what is tested.
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
BESIDE = ("tests/services",)
AFTER = ("tests/services_training",)
LOOK_S = 0.1
NO_TESTS = 5
"""Pytest's exit code where nothing was selected."""


def side_by_side(root: Path, beside: Sequence[str], after: Sequence[str], options: Sequence[str] = ()) -> int:
    """Run pytest over `beside` and over all that it is to test but these, and over `after` when one of them has ended.

    Returns:
        0 where all passed, else the exit code of one that did not.
    """
    pytest = [sys.executable, "-m", "pytest", *options]
    with tempfile.TemporaryFile() as beside_said, tempfile.TemporaryFile() as after_said:
        running = [
            _started([*pytest, *(f"--ignore={one}" for one in (*beside, *after))], root),
            _started([*pytest, *beside], root, stdout=beside_said, stderr=subprocess.STDOUT),
        ]
        _, interrupted = _codes(running, least=1)
        if not interrupted:
            running.append(_started([*pytest, *after], root, stdout=after_said, stderr=subprocess.STDOUT))
        codes, _ = _codes(running, least=len(running))
        for folders, said in ((beside, beside_said), (after, after_said)):
            said.seek(0)
            words = said.read().decode(errors="replace")
            sys.stdout.write(f"\nBeside it, {', '.join(folders)}:\n{words}")
        sys.stdout.flush()
    ran = [code for code in codes if code != NO_TESTS]
    return next((code for code in ran if code), 0) if ran else NO_TESTS


def _started(command: Sequence[str], root: Path, **where: Any) -> "subprocess.Popen[bytes]":
    """In a session of its own: a terminal's interrupt comes once, from here, and does not cut the taking down short."""
    return subprocess.Popen(command, cwd=root, start_new_session=True, **where)


def _codes(running: Sequence["subprocess.Popen[bytes]"], least: int) -> tuple[list[int], bool]:
    """The exit codes of those that have ended, once so many have, and whether an interrupt was passed on to them."""
    interrupted = False
    while True:
        try:
            codes = [code for one in running if (code := one.poll()) is not None]
            if len(codes) >= (len(running) if interrupted else least):
                return codes, interrupted
            time.sleep(LOOK_S)
        except KeyboardInterrupt:
            interrupted = True
            for one in running:
                if one.poll() is None:
                    one.send_signal(signal.SIGINT)


if __name__ == "__main__":
    sys.exit(side_by_side(ROOT, BESIDE, AFTER, sys.argv[1:]))
