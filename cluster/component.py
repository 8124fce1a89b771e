"""What every part of the embedded platform has: a command, a health check, a way to stop.

The parts themselves are seaweedfs.py, postgresql.py, mlflow_server.py and ray_head.py; platform.py runs them.
"""

import http.client
import signal
import sys
import urllib.error
import urllib.request
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from cluster.home import PlatformError
from cluster.ports import Ports
from cluster.site import Site

INSTALL = "install the locked dependencies again: `rm -f .venv/.installed && make setup`"


class Component(ABC):
    """Stateless: everything it needs is the site."""

    name: ClassVar[str]
    title: ClassVar[str]
    ports: ClassVar[tuple[str, ...]]
    """The ports it opens, by name; they must be free before it starts."""
    main_port: ClassVar[str]
    needs: ClassVar[tuple[str, ...]] = ()
    """Components that must be ready before this one starts."""
    start_timeout_s: ClassVar[float] = 180.0
    """Ten times what an idle machine of two cores takes, because the machine may be busy."""
    start_attempts: ClassVar[int] = 1
    """More than one for what may give up by itself and succeed the next time."""
    stop_signal: ClassVar[signal.Signals] = signal.SIGTERM
    stop_timeout_s: ClassVar[float] = 10.0

    @abstractmethod
    def program(self) -> Path:
        """Its executable; used to see that the wheel is installed."""

    @abstractmethod
    def command(self, site: Site) -> list[str]:
        """The command line; it carries no secret, because every user of the machine can read it."""

    @abstractmethod
    def is_healthy(self, site: Site) -> bool:
        """It answers, now; a short question."""

    def own_env(self, site: Site) -> Mapping[str, str]:
        """Environment of its processes only."""
        return {}

    def prepare(self, site: Site) -> None:  # noqa: B027 - nothing to do, as a rule
        """Before each start; safe to repeat."""

    def finish(self, site: Site) -> None:  # noqa: B027 - nothing to do, as a rule
        """After each start, when it answers: what must exist in it; safe to repeat."""

    def clean(self, ports: Ports) -> None:  # noqa: B027 - nothing to do, as a rule
        """After each stop: what a killed process could not remove outside the home; safe to repeat."""

    def address(self, site: Site) -> str:
        return site.url(self.main_port)

    def check_installed(self) -> None:
        """See that its program is there.

        Raises:
            PlatformError: it is not; says how to install it.
        """
        if not self.program().is_file():
            raise PlatformError(f"{self.title} is not installed ({self.program()} is missing): {INSTALL}")


def scripts_directory() -> Path:
    """Where the wheels of this Python put their programs."""
    return Path(sys.executable).parent


def http_status(url: str, headers: Mapping[str, str] | None = None, timeout_s: float = 3.0) -> int | None:
    """Status of a GET, None when nobody answers in HTTP; goes past any proxy that the environment names."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(
            urllib.request.Request(url, headers=dict(headers or {})), timeout=timeout_s
        ) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code
    except (OSError, http.client.HTTPException):  # the latter: another server has the port
        return None
