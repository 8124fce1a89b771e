"""Checkpoints of one run in the object store: a folder each, whose commit object is written last.

`commit.json` names every file with its SHA-256 and size; readers ignore a folder without it. Each attempt at a run
writes folders of its own, so nothing is written twice, and a process that was wrongly taken for dead can damage
nothing. Knows neither Ray nor torch, nor the content of the files.
"""

import contextlib
import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.fs

COMMIT_NAME = "commit.json"
FOLDER = re.compile(r"step-(\d{8})-(?:epoch-(\d{4})-)?rollbacks-(\d)-([0-9a-f]{8})")
CHUNK = 2**22

Files = Mapping[str, "Receipt"]


class DamagedError(Exception):
    """A committed checkpoint differs from what was written; the message names the file and the damage."""


@dataclass(frozen=True, kw_only=True)
class Mark:
    """The moment of a run that a checkpoint is of."""

    step: int
    epoch: int | None = None
    """The epoch that ends with this step, from 1."""
    rollbacks: int = 0

    @property
    def order(self) -> tuple[int, int]:
        return self.step, self.rollbacks


@dataclass(frozen=True, kw_only=True)
class Receipt:
    """Hash and size of a file as written."""

    sha256: str
    bytes: int


@dataclass(frozen=True, kw_only=True)
class Retention:
    newest: int = 2
    """Number of the newest checkpoints that stay."""
    every_epochs: int = 0
    """The checkpoint at the end of each such epoch stays too; 0: none."""

    def drops(self, names: Sequence[str], newest: str) -> list[str]:
        """Return the names that may go now that `newest` is committed: neither that one, nor one that claims to be
        newer.

        A newer one was damaged, else the run would have resumed from it; it goes once the run has passed it.
        """
        attempt = newest[-8:]
        behind = sorted(
            (name for name in names if name != newest and mark_of(name).order <= mark_of(newest).order),
            key=lambda name: (mark_of(name).order, name.endswith(attempt)),
            reverse=True,
        )
        return [name for name in behind[max(self.newest, 1) - 1 :] if not self._stays(mark_of(name))]

    def _stays(self, mark: Mark) -> bool:
        return bool(self.every_epochs and mark.epoch and mark.epoch % self.every_epochs == 0)


def folder_name(mark: Mark, attempt: str) -> str:
    epoch = "" if mark.epoch is None else f"epoch-{mark.epoch:04d}-"
    return f"step-{mark.step:08d}-{epoch}rollbacks-{mark.rollbacks}-{attempt}"


def mark_of(name: str) -> Mark:
    """Parse a checkpoint's name.

    Raises:
        ValueError: it is no such name.
    """
    match = FOLDER.fullmatch(name)
    if match is None:
        raise ValueError(f"{name} is no checkpoint's name")
    step, epoch, rollbacks, _ = match.groups()
    return Mark(step=int(step), epoch=None if epoch is None else int(epoch), rollbacks=int(rollbacks))


def _copy(source: Any, sink: Any) -> Receipt:
    """Copy a stream, and return its hash and size."""
    digest, size = hashlib.sha256(), 0
    while chunk := source.read(CHUNK):
        digest.update(chunk)
        sink.write(chunk)
        size += len(chunk)
    return Receipt(sha256=digest.hexdigest(), bytes=size)


class CheckpointStore:
    """Checkpoints below `root` of a file system; every method may raise OSError, and can then be retried."""

    def __init__(self, filesystem: pyarrow.fs.FileSystem, root: str, *, witness: str | None = None) -> None:
        """Args:
        witness: path of an object that was there before any checkpoint; without it, the server is just starting
            and its listing of the rest is incomplete.
        """
        self.filesystem = filesystem
        self.root = root
        self.witness = witness

    def committed(self) -> list[str]:
        """Return the names of the committed checkpoints, newest first."""
        names = [name for name, files in self._folders().items() if COMMIT_NAME in files]
        return sorted(names, key=lambda name: (mark_of(name).order, name), reverse=True)

    def ready(self) -> None:
        """Check that the store answers.

        Raises:
            OSError: it does not answer yet.
        """
        if self.witness is not None:
            info = self.filesystem.get_file_info(self.witness)
            if info.type == pyarrow.fs.FileType.NotFound:
                raise OSError(f"{self.witness} is not there: the S3 server is starting, or has lost its data")

    def put(self, name: str, file: Path) -> Receipt:
        """Upload a file of a checkpoint."""
        with self._written(f"{name}/{file.name}") as stream, file.open("rb") as source:
            return _copy(source, stream)

    def commit(self, name: str, files: Files) -> None:
        """Make the checkpoint visible, once all of its files are stored."""
        described = {
            file: {"sha256": receipt.sha256, "bytes": receipt.bytes} for file, receipt in files.items()
        }
        with self._written(f"{name}/{COMMIT_NAME}") as stream:
            stream.write(json.dumps({"files": described}, sort_keys=True, indent=1).encode())

    def fetch(self, name: str, folder: Path, only: str | None = None) -> None:
        """Download the files of a checkpoint, or one of them, and check each.

        Raises:
            DamagedError: a file is missing, torn or changed.
        """
        files = self._files(name)
        for file in [only] if only is not None else files:
            self._fetch_one(name, file, files[file], folder / file)

    def _files(self, name: str) -> dict[str, Receipt]:
        try:
            with self.filesystem.open_input_stream(f"{self.root}/{name}/{COMMIT_NAME}") as stream:
                described = json.loads(stream.read())
            return {file: Receipt(**receipt) for file, receipt in described["files"].items()}
        except FileNotFoundError as error:
            raise DamagedError(f"{COMMIT_NAME} is missing") from error
        except (ValueError, KeyError, TypeError) as error:
            raise DamagedError(f"{COMMIT_NAME} is torn") from error

    def _fetch_one(self, name: str, file: str, receipt: Receipt, target: Path) -> None:
        path = f"{self.root}/{name}/{file}"
        try:
            with self.filesystem.open_input_stream(path) as stream, target.open("wb") as sink:
                copy = _copy(stream, sink)
        except FileNotFoundError as error:
            raise DamagedError(f"{file} is missing") from error
        if copy.bytes != receipt.bytes:
            raise DamagedError(f"{file} has {copy.bytes} bytes of {receipt.bytes}")
        if copy != receipt:
            raise DamagedError(f"{file} is not what was written")

    def prune(self, retention: Retention, newest: str) -> list[str]:
        """Delete the checkpoints that no rule keeps; their commit objects first."""
        names = retention.drops(self.committed(), newest)
        for name in names:
            self._delete(name)
        return names

    def sweep(self, attempt: str) -> list[str]:
        """Delete half-written folders of other attempts: those with a checkpoint's name and without a commit object."""
        left = [
            name
            for name, files in self._folders().items()
            if COMMIT_NAME not in files and not name.endswith(attempt)
        ]
        for name in left:
            self._delete(name)
        return left

    def _folders(self) -> dict[str, set[str]]:
        """Return the files of each folder that has a checkpoint's name."""
        selector = pyarrow.fs.FileSelector(self.root, recursive=True, allow_not_found=True)
        folders: dict[str, set[str]] = {}
        for info in self.filesystem.get_file_info(selector):
            name, _, file = info.path.removeprefix(f"{self.root}/").partition("/")
            if file and info.type == pyarrow.fs.FileType.File and FOLDER.fullmatch(name):
                folders.setdefault(name, set()).add(file)
        return folders

    def _delete(self, name: str) -> None:
        files = sorted(self._folders().get(name, set()), key=lambda file: file != COMMIT_NAME)
        for file in files:
            with contextlib.suppress(FileNotFoundError):  # another attempt deletes it too
                self.filesystem.delete_file(f"{self.root}/{name}/{file}")

    @contextlib.contextmanager
    def _written(self, key: str) -> Iterator[pyarrow.NativeFile]:
        path = f"{self.root}/{key}"
        if isinstance(self.filesystem, pyarrow.fs.LocalFileSystem):
            self.filesystem.create_dir(path.rpartition("/")[0])
        with self.filesystem.open_output_stream(path) as stream:
            yield stream
