"""Local temporary folders for files on their way to or from the object store; those of killed processes are removed.

The folder's name has the process id, so that the next process on this machine knows its owner.
"""

import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil

NAME = re.compile(r"raydiology-train-(\d+)-.+")


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """Create an empty folder, removed at the end."""
    sweep()
    with tempfile.TemporaryDirectory(prefix=f"raydiology-train-{os.getpid()}-") as folder:
        yield Path(folder)


def sweep() -> list[Path]:
    """Remove the folders of dead processes."""
    matches = ((path, NAME.fullmatch(path.name)) for path in Path(tempfile.gettempdir()).iterdir())
    dead = [path for path, match in matches if match is not None and not psutil.pid_exists(int(match[1]))]
    for path in dead:
        shutil.rmtree(path, ignore_errors=True)  # another process may remove it too
    return dead
