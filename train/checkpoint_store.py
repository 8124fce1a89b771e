"""Checkpoints of one run in the object store: a folder each, whose commit object is written last.

`commit.json` names every file with its SHA-256 and size; a folder without it does not exist for a reader. Each attempt
at a run writes folders of its own, so nothing is ever written twice, and a process that was thought dead can tear
nothing. Knows neither Ray nor torch, nor what is in the files.
"""

import contextlib
import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow.fs

COMMIT_NAME = "commit.json"
FOLDER = re.compile(r"step-(\d{8})-(?:epoch-(\d{4})-)?rollbacks-(\d)-([0-9a-f]{8})")
CHUNK = 2**22

Files = Mapping[str, "Receipt"]


class DamagedError(Exception):
    """A checkpoint that was committed is not what was written; says which file, and how."""


@dataclass(frozen=True, kw_only=True)
class Mark:
    """Which moment of a run a checkpoint is of."""

    step: int
    epoch: int | None = None
    """The epoch that ends with this step, from 1."""
    rollbacks: int = 0

    @property
    def order(self) -> tuple[int, int]:
        return self.step, self.rollbacks


@dataclass(frozen=True, kw_only=True)
class Receipt:
    """What a file was when it was written."""

    sha256: str
    bytes: int


@dataclass(frozen=True, kw_only=True)
class Retention:
    newest: int = 2
    """How many of the newest checkpoints stay."""
    every_epochs: int = 0
    """The checkpoint at the end of each such epoch stays too; 0 is none."""

    def drops(self, names: Sequence[str], newest: str) -> list[str]:
        """Which of these may go now that `newest` is committed: never that one, nor what claims to be newer.

        (A newer one was damaged, else the run would have gone on from it; it goes when the run has passed it.)
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
    """Raises ValueError where it is no name of a checkpoint."""
    match = FOLDER.fullmatch(name)
    if match is None:
        raise ValueError(f"{name} is no checkpoint's name")
    step, epoch, rollbacks, _ = match.groups()
    return Mark(step=int(step), epoch=None if epoch is None else int(epoch), rollbacks=int(rollbacks))


class CheckpointStore:
    """Below `root` of a file system; every method may raise OSError, which another attempt may cure."""

    def __init__(self, filesystem: pyarrow.fs.FileSystem, root: str, *, witness: str | None = None) -> None:
        """Args:
        witness: path of an object that was there before any checkpoint; where it is missing, the server is just
            starting and what it says about the rest is not to be believed.
        """
        self.filesystem = filesystem
        self.root = root
        self.witness = witness

    def committed(self) -> list[str]:
        """Names of the checkpoints that have a commit object, newest first."""
        found = [name for name, files in self._folders().items() if COMMIT_NAME in files]
        return sorted(found, key=lambda name: (mark_of(name).order, name), reverse=True)

    def ready(self) -> None:
        """Raises OSError where the store does not answer yet."""
        if self.witness is not None:
            found = self.filesystem.get_file_info(self.witness)
            if found.type == pyarrow.fs.FileType.NotFound:
                raise OSError(f"{self.witness} is not there: the S3 server is starting, or has lost its data")

    def put(self, name: str, file: Path) -> Receipt:
        """Upload a file of a checkpoint."""
        digest, size = hashlib.sha256(), 0
        with self._written(f"{name}/{file.name}") as stream, file.open("rb") as source:
            while chunk := source.read(CHUNK):
                digest.update(chunk)
                stream.write(chunk)
                size += len(chunk)
        return Receipt(sha256=digest.hexdigest(), bytes=size)

    def commit(self, name: str, files: Files) -> None:
        """Make the checkpoint exist, once all of its files are there."""
        described = {
            one: {"sha256": receipt.sha256, "bytes": receipt.bytes} for one, receipt in files.items()
        }
        with self._written(f"{name}/{COMMIT_NAME}") as stream:
            stream.write(json.dumps({"files": described}, sort_keys=True, indent=1).encode())

    def fetch(self, name: str, folder: Path, only: str | None = None) -> None:
        """Download the files of a checkpoint, or one of them, and check each.

        Raises:
            DamagedError: a file is missing, torn or changed.
        """
        files = self._files(name)
        for one in [only] if only is not None else files:
            self._fetch_one(name, one, files[one], folder / one)

    def _files(self, name: str) -> dict[str, Receipt]:
        try:
            with self.filesystem.open_input_stream(f"{self.root}/{name}/{COMMIT_NAME}") as stream:
                described = json.loads(stream.read())
            return {one: Receipt(**receipt) for one, receipt in described["files"].items()}
        except FileNotFoundError as error:
            raise DamagedError(f"{COMMIT_NAME} is missing") from error
        except (ValueError, KeyError, TypeError) as error:
            raise DamagedError(f"{COMMIT_NAME} is torn") from error

    def _fetch_one(self, name: str, file: str, receipt: Receipt, target: Path) -> None:
        digest, size = hashlib.sha256(), 0
        try:
            with (
                self.filesystem.open_input_stream(f"{self.root}/{name}/{file}") as stream,
                target.open("wb") as sink,
            ):
                while chunk := stream.read(CHUNK):
                    digest.update(chunk)
                    sink.write(chunk)
                    size += len(chunk)
        except FileNotFoundError as error:
            raise DamagedError(f"{file} is missing") from error
        if size != receipt.bytes:
            raise DamagedError(f"{file} has {size} bytes of {receipt.bytes}")
        if digest.hexdigest() != receipt.sha256:
            raise DamagedError(f"{file} is not what was written")

    def prune(self, retention: Retention, newest: str) -> list[str]:
        """Delete the checkpoints that no rule keeps; their commit objects first."""
        names = retention.drops(self.committed(), newest)
        for name in names:
            self._delete(name)
        return names

    def sweep(self, attempt: str) -> list[str]:
        """Delete what other attempts left half-written: folders that we name so, without a commit object."""
        left = [
            name
            for name, files in self._folders().items()
            if COMMIT_NAME not in files and not name.endswith(attempt)
        ]
        for name in left:
            self._delete(name)
        return left

    def _folders(self) -> dict[str, set[str]]:
        """The files of each folder that has a checkpoint's name."""
        selector = pyarrow.fs.FileSelector(self.root, recursive=True, allow_not_found=True)
        found: dict[str, set[str]] = {}
        for one in self.filesystem.get_file_info(selector):
            name, _, file = one.path.removeprefix(f"{self.root}/").partition("/")
            if file and one.type == pyarrow.fs.FileType.File and FOLDER.fullmatch(name):
                found.setdefault(name, set()).add(file)
        return found

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
