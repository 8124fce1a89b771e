"""The health of each component of the embedded platform, and its ports that other machines can reach.

`cluster.embedded.platform` prints it.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import psutil

from cluster.embedded.component import Component
from cluster.embedded.home import Home
from cluster.embedded.process import is_alive, last_lines, marked
from cluster.embedded.site import Site
from cluster.embedded.state import State
from cluster.embedded.supervisor import COMPONENTS


@dataclass(frozen=True, kw_only=True)
class Health:
    title: str
    state: str
    """"up", "does not answer", "died" or "down"."""
    address: str
    pid: int | None
    last_words: tuple[str, ...] = ()


def status(home: Home) -> list[Health]:
    """Return the health of each component; empty when the platform was never up."""
    state = State.read(home) if home.path.is_dir() else State(home)
    if state.ports is None:
        return []
    site = state.site()
    with ThreadPoolExecutor(len(COMPONENTS)) as pool:
        return list(pool.map(lambda component: _health(component, site, state), COMPONENTS))


def _health(component: Component, site: Site, state: State) -> Health:
    identity = state.components.get(component.name)
    alive = identity is not None and is_alive(identity)
    if identity is None:
        how = "down"
    elif not alive:
        how = "died"
    else:
        how = "up" if component.is_healthy(site) else "does not answer"
    return Health(
        title=component.title,
        state=how,
        address=component.address(site),
        pid=identity.pid if identity is not None and alive else None,
        last_words=tuple(last_lines(site.home.log(component.name)))
        if how in ("died", "does not answer")
        else (),
    )


@dataclass(frozen=True, kw_only=True)
class OpenPort:
    """A listening socket that other machines can reach."""

    port: int
    process: str
    asks_for_token: bool
    """Ray's own servers do; the rendezvous of torch.distributed, open while a training runs, asks for nothing."""

    def __str__(self) -> str:
        return f"{self.port} ({self.process}, {'asks for' if self.asks_for_token else 'without'} a token)"


def beyond_loopback(home: Home) -> list[OpenPort]:
    """List the platform's listening sockets that are not on loopback alone, by port."""
    open_ports = set()
    for process in marked(home.id):
        try:
            sockets = process.net_connections("tcp")
            name = process.name()
        except psutil.Error:
            continue
        for listener in sockets:
            address = listener.laddr.ip.removeprefix("::ffff:") if listener.laddr else ""
            if listener.status == psutil.CONN_LISTEN and not address.startswith("127.") and address != "::1":
                open_ports.add((listener.laddr.port, name))
    return [
        OpenPort(port=port, process=name, asks_for_token=name.startswith("ray::ServeRepl"))
        for port, name in sorted(open_ports)
    ]
