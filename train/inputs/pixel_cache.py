"""Pixels of a split that is larger than memory: decoded once into a local file that all workers of a machine map.

The system keeps the used pages only, so a worker's own memory stays that of a batch. A file gets its name only when
it is whole. It is locked while a process maps it; the last one to release it deletes it, and the next one to fill a
file deletes those of killed processes: pixels do not outlive the training.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import psutil

CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")
Allocate = Callable[[tuple[int, ...]], np.ndarray]
"""Returns an array for uint8 pixels of this shape."""


class CacheError(OSError):
    """The local file cannot be created; one line that says what to do."""


@dataclass(frozen=True, kw_only=True)
class Mapped:
    """A split whose pixels lie in a file."""

    hashes: list[str]
    labels_N: np.ndarray
    pixels_NHW: np.ndarray
    """Read-only, mapped."""
    lock: IO[bytes]
    """Held while this lives."""

    def close(self) -> None:
        """Delete the file, unless another process still maps it."""
        path = Path(self.lock.name)
        with _alone(path.parent):
            if _is_free(self.lock):
                _delete(path)
            self.lock.close()


def memory_bytes() -> int:
    """Return the memory of this machine, or of the container."""
    total = int(psutil.virtual_memory().total)
    try:
        return min(total, int(CGROUP_LIMIT.read_text()))
    except (FileNotFoundError, ValueError):  # no such cgroup; "max"
        return total


def folder() -> Path:
    """Return the folder of the files: below `TMPDIR`, for this user alone."""
    path = Path(tempfile.gettempdir()) / f"raydiology-pixels-{os.getuid()}"
    path.mkdir(mode=0o700, exist_ok=True)
    return path


def key(described: Mapping[str, Any], split: str) -> str:
    """Name a split by its content: a version whose patients were erased is another one."""
    parts = [part["sha256"] for part in described["parts"] if part["split"] == split]
    return hashlib.sha256(json.dumps([described["version"], split, parts]).encode()).hexdigest()[:32]


def mapped(
    name: str, fill: Callable[[Allocate], tuple[list[str], np.ndarray]], where: Path | None = None
) -> Mapped:
    """Map the file of this name; the first process of a machine fills it while the others wait.

    Args:
        fill: given a place for the pixels, fills it and returns sample hashes and labels.
    Raises:
        CacheError: there is no space for it.
    """
    path = (where or folder()) / f"{name}.pixels"
    with _alone(path.parent):
        if not (path.exists() and _labels(path).exists()):
            _sweep(path.parent)
            _fill(path, fill)
        lock = path.open("rb")
        fcntl.flock(lock, fcntl.LOCK_SH)
    with np.load(_labels(path)) as labels:
        hashes, labels_N, shape = labels["hashes"].tolist(), labels["labels"], tuple(labels["shape"])
    return Mapped(
        hashes=hashes,
        labels_N=labels_N,
        pixels_NHW=np.asarray(np.memmap(path, np.uint8, "r", shape=shape)),
        lock=lock,
    )


def _fill(path: Path, fill: Callable[[Allocate], tuple[list[str], np.ndarray]]) -> None:
    half = path.with_suffix(".half")
    places: list[np.ndarray] = []

    def allocate(shape: tuple[int, ...]) -> np.ndarray:
        places.append(_reserved(half, shape))
        return places[-1]

    try:
        hashes, labels_N = fill(allocate)
        places[-1].flush()  # type: ignore[attr-defined]
        half.rename(path)
        with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".npz", delete=False) as written:
            np.savez(written, hashes=np.array(hashes), labels=labels_N, shape=places[-1].shape)
        Path(written.name).rename(_labels(path))  # the last one: what makes the file whole
    finally:
        half.unlink(missing_ok=True)


def _reserved(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """Map a file whose space is reserved: a full disk is an error here and no signal later."""
    size = int(np.prod(shape))
    try:
        with path.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, size)
    except OSError as error:
        raise CacheError(
            f"{path.parent} has no space for {size / 2**30:.1f} GiB of pixels ({error.strerror}): point TMPDIR at a "
            "larger disk, or keep them in memory with a larger --train.memory_share"
        ) from error
    return np.memmap(path, np.uint8, "r+", shape=shape)


def _labels(path: Path) -> Path:
    return path.with_suffix(".labels.npz")


def _delete(path: Path) -> None:
    _labels(path).unlink(missing_ok=True)  # without them the pixels are not whole
    path.unlink(missing_ok=True)


def _sweep(where: Path) -> None:
    """Delete the files that no process maps."""
    for other in where.glob("*.pixels"):
        with other.open("rb") as lock:
            if _is_free(lock):
                _delete(other)


def _is_free(lock: IO[bytes]) -> bool:
    """Return True if no other process holds the lock; it is then exclusive."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextlib.contextmanager
def _alone(where: Path) -> Iterator[None]:
    """Let one process of this machine in at a time."""
    with (where / "lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
