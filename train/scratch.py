"""Local folders for what is on its way to or from the object store; those of processes that were killed are removed.

The folder's name has the process id, so that the next process of ours on this machine knows whose it was.
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
    """A new empty folder, removed at the end."""
    sweep()
    with tempfile.TemporaryDirectory(prefix=f"raydiology-train-{os.getpid()}-") as folder:
        yield Path(folder)


def sweep() -> list[Path]:
    """Remove what dead processes left."""
    found = ((one, NAME.fullmatch(one.name)) for one in Path(tempfile.gettempdir()).iterdir())
    dead = [one for one, match in found if match is not None and not psutil.pid_exists(int(match[1]))]
    for one in dead:
        shutil.rmtree(one, ignore_errors=True)  # another process may remove it too
    return dead
