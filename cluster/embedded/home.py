"""The platform's home directory: `.raydiology/` beside the rooms, or `RAYDIOLOGY_HOME`.

Everything that the embedded platform keeps lies here, readable by its owner only; only Ray's session, whose
sockets need a short path, lies in a directory of its own under /tmp. Knows no component.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.expected import ExpectedError
from cluster.settings import PROJECT_ROOT

PRIVATE_DIRECTORY, PRIVATE_FILE = 0o700, 0o600
MIN_FREE_BYTES = 2 * 1024**3
"""Below this a demo cannot end well: images, PostgreSQL's log, checkpoints and Ray's session need the room."""


class PlatformError(ExpectedError):
    """The platform cannot do what was asked; the message is one line that says what to do."""


def write_private(path: Path, text: str, mode: int = PRIVATE_FILE) -> None:
    """Write a file that only its owner can read; concurrent readers see the old or the new one, whole."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


@dataclass(frozen=True)
class Home:
    path: Path
    """Absolute, with links resolved: the same home has one name, and so one id."""

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> "Home":
        """Return the home that `RAYDIOLOGY_HOME` names, or the project's own.

        Raises:
            PlatformError: the path has a character that a plain `NAME=value` line cannot carry into a shell.
        """
        path = Path(env.get("RAYDIOLOGY_HOME") or PROJECT_ROOT / ".raydiology").expanduser().resolve()
        if not re.fullmatch(r"[\w./@%+:,-]+", str(path)):
            raise PlatformError(
                f"the path {path} has a space or another character that a shell would split; "
                "set RAYDIOLOGY_HOME to a directory without such characters"
            )
        return cls(path)

    @property
    def id(self) -> str:
        """The mark that every process of this home carries in its environment."""
        return hashlib.sha256(str(self.path).encode()).hexdigest()[:10]

    @property
    def socket_directory(self) -> Path:
        """The folder of Unix sockets, whose paths have at most 107 bytes (97 for HAProxy's): too few below the home.

        Ray's sessions lie here too, one level deeper, because Ray opens its own directory to everyone.
        """
        return Path(f"/tmp/raydiology-{self.id}")

    @property
    def env_file(self) -> Path:
        return self.path / "env"

    @property
    def state_file(self) -> Path:
        return self.path / "state.json"

    def log(self, component: str) -> Path:
        return self.path / "logs" / f"{component}.log"

    def prepare(self, min_free_bytes: int = MIN_FREE_BYTES) -> None:
        """Make the directories, owner only.

        Raises:
            PlatformError: they cannot be made, are someone else's, or the disk is nearly full.
        """
        try:
            for directory in (self.path, self.path / "logs", self.socket_directory):
                directory.mkdir(mode=PRIVATE_DIRECTORY, parents=True, exist_ok=True)
                if directory.is_symlink() or directory.stat().st_uid != os.geteuid():
                    raise PlatformError(
                        f"{directory} belongs to someone else; remove it or set RAYDIOLOGY_HOME"
                    )
                directory.chmod(PRIVATE_DIRECTORY)
        except OSError as error:
            raise PlatformError(
                f"cannot make {error.filename}: {error.strerror}; set RAYDIOLOGY_HOME"
            ) from error
        for directory in (self.path, self.socket_directory):
            free = shutil.disk_usage(directory).free
            if free < min_free_bytes:
                raise PlatformError(
                    f"the disk under {directory} is full: {free / 1024**3:.1f} GiB left, "
                    f"{min_free_bytes / 1024**3:.0f} GiB needed; free some room or set RAYDIOLOGY_HOME"
                )

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the home during one `up` or `down`.

        Raises:
            PlatformError: another one holds it.
        """
        path = self.path / "lock"
        with path.open("a+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                holder = path.read_text().strip() or "unknown"
                raise PlatformError(
                    f"another `up` or `down` of {self.path} is at work (process {holder}); wait until it ends"
                ) from error
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
            yield

    def read_state(self) -> dict[str, Any]:
        """Read what earlier calls left: chosen ports, and the process of each component. Empty before the first."""
        try:
            state: dict[str, Any] = json.loads(self.state_file.read_text())
        except FileNotFoundError:
            return {}
        except ValueError as error:
            raise PlatformError(
                f"{self.state_file} is damaged ({error}); remove it and run `make up`"
            ) from error
        return state

    def write_state(self, state: Mapping[str, Any]) -> None:
        write_private(self.state_file, json.dumps(state, indent=1, sort_keys=True))
