"""Run the tests in two processes side by side, as most of the time is spent waiting: `make test`.

One has some folders; the other has all the rest, but for one folder that comes after it, since each process has a
platform of its own and three of them fill a small machine's memory. What the other says is shown as it comes, what the
one says when all have ended. The exit code is 0 where all passed. An interrupt reaches all that run, and they take down
what they have started. Knows nothing of what is tested.
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
AFTER = ("tests/services_training",)
NO_TESTS, INTERRUPTED = 5, 2
"""Pytest's exit codes: nothing was selected; it was interrupted, or could not read its tests."""


def side_by_side(root: Path, beside: Sequence[str], after: Sequence[str], options: Sequence[str] = ()) -> int:
    """Run pytest over `beside`, and in the meantime over all that it is to test but these, then over `after`.

    Returns:
        0 where all passed, else the exit code of one that did not.
    """
    pytest = [sys.executable, "-m", "pytest", *options]
    with tempfile.TemporaryFile() as said:
        other = _started([*pytest, *beside], root, stdout=said, stderr=subprocess.STDOUT)
        rest = _started([*pytest, *(f"--ignore={one}" for one in (*beside, *after))], root)
        codes = [_ended(rest, other)]
        if codes[0] != INTERRUPTED:
            codes.append(_ended(_started([*pytest, *after], root), other))
        codes.append(_ended(other))
        said.seek(0)
        sys.stdout.write(f"\nBeside it, {', '.join(beside)}:\n{said.read().decode(errors='replace')}")
        sys.stdout.flush()
    ran = [code for code in codes if code != NO_TESTS]
    return next((code for code in ran if code), 0) if ran else NO_TESTS


def _started(command: Sequence[str], root: Path, **where: Any) -> "subprocess.Popen[bytes]":
    """In a session of its own: a terminal's interrupt comes once, from here, and does not cut the taking down short."""
    return subprocess.Popen(command, cwd=root, start_new_session=True, **where)


def _ended(one: "subprocess.Popen[bytes]", *others: "subprocess.Popen[bytes]") -> int:
    """The exit code; an interrupt is passed on to the others too, and what it ends is waited for."""
    while True:
        try:
            return one.wait()
        except KeyboardInterrupt:
            for each in (one, *others):
                if each.poll() is None:
                    each.send_signal(signal.SIGINT)


if __name__ == "__main__":
    sys.exit(side_by_side(ROOT, BESIDE, AFTER, sys.argv[1:]))
