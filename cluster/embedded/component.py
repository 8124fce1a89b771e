"""The interface of every part of the embedded platform: a command, a health check, a way to stop.

The parts themselves are seaweedfs.py, postgresql.py, mlflow_server.py and ray_head.py; platform.py runs them.
"""

import signal
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import httpx

from cluster.embedded.home import PlatformError
from cluster.embedded.ports import Ports
from cluster.embedded.site import Site

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
        """Return the path of its executable, by which an installation is checked."""

    @abstractmethod
    def command(self, site: Site) -> list[str]:
        """Return the command line; it carries no secret, because every user of the machine can read it."""

    @abstractmethod
    def is_healthy(self, site: Site) -> bool:
        """Tell whether it answers now; takes a moment."""

    def own_env(self, site: Site) -> Mapping[str, str]:
        """Return the environment of its processes only."""
        return {}

    def prepare(self, site: Site) -> None:  # noqa: B027 - nothing to do, as a rule
        """Prepare each start; safe to repeat."""

    def finish(self, site: Site) -> None:  # noqa: B027 - nothing to do, as a rule
        """Set up, after each start, what must exist in it; safe to repeat."""

    def clean(self, ports: Ports) -> None:  # noqa: B027 - nothing to do, as a rule
        """Remove, after each stop, what a killed process left outside the home; safe to repeat."""

    def address(self, site: Site) -> str:
        return site.url(self.main_port)

    def check_installed(self) -> None:
        """Check that its program is there.

        Raises:
            PlatformError: it is not; says how to install it.
        """
        if not self.program().is_file():
            raise PlatformError(f"{self.title} is not installed ({self.program()} is missing): {INSTALL}")


def scripts_directory() -> Path:
    """Return the folder where the wheels of this Python put their programs."""
    return Path(sys.executable).parent


def http_status(url: str, headers: Mapping[str, str] | None = None, timeout_s: float = 3.0) -> int | None:
    """Return the status of a GET, None when no HTTP server answers; ignores proxies that the environment names."""
    try:
        return httpx.get(url, headers=headers, timeout=timeout_s, trust_env=False).status_code
    except httpx.TransportError:  # no server, or one that speaks another protocol
        return None
