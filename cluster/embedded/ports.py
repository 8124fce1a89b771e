"""The ports that the parts of the embedded platform listen on.

Each named port has a setting; the rest (SeaweedFS's and Ray's own) come as one slot of
numbers below the range that the system hands to outgoing connections. Chosen once, then remembered.
"""

import errno
import fcntl
import os
import random
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import psutil

from cluster.embedded.home import PlatformError


@dataclass(frozen=True, kw_only=True)
class NamedPort:
    default: int
    setting: str
    title: str


NAMED = {
    "s3": NamedPort(default=9000, setting="RAYDIOLOGY_S3_PORT", title="S3"),
    "postgresql": NamedPort(default=5432, setting="RAYDIOLOGY_POSTGRESQL_PORT", title="PostgreSQL"),
    "mlflow": NamedPort(default=5000, setting="RAYDIOLOGY_MLFLOW_PORT", title="MLflow"),
    "ray_gcs": NamedPort(default=6379, setting="RAYDIOLOGY_RAY_GCS_PORT", title="Ray GCS"),
    "dashboard": NamedPort(default=8265, setting="RAYDIOLOGY_DASHBOARD_PORT", title="Ray dashboard"),
    "serve": NamedPort(default=8000, setting="RAYDIOLOGY_SERVE_PORT", title="Ray Serve"),
    "metrics": NamedPort(default=8080, setting="RAYDIOLOGY_METRICS_PORT", title="Ray metrics"),
    "haproxy_stats": NamedPort(
        default=8404, setting="RAYDIOLOGY_HAPROXY_STATS_PORT", title="HAProxy statistics"
    ),
    "haproxy_metrics": NamedPort(
        default=9101, setting="RAYDIOLOGY_HAPROXY_METRICS_PORT", title="HAProxy metrics"
    ),
}
INTERNAL = (
    *("s3_grpc", "master", "master_grpc", "volume", "volume_grpc", "filer", "filer_grpc"),
    *("ray_node_manager", "ray_object_manager", "ray_client", "ray_agent_http", "ray_agent_grpc"),
    *("ray_runtime_env", "ray_autoscaler_metrics", "ray_dashboard_metrics"),
    *("serve_fallback_http", "serve_fallback_grpc"),
)
SLOTS = 10
"""Platforms of different homes that can run on one machine; each slot has the four blocks below."""
INTERNAL_BASE, INTERNAL_COUNT = 28_000, 50
WORKERS_BASE, WORKERS_COUNT = 20_000, 600
REPLICAS_BASE, REPLICAS_COUNT = 30_000, 100  # 30000 is Ray Serve's own default
RANDOM_RANGE = range(14_000, 20_000)
"""Where a free named port is looked for: below our slots, and below outgoing connections (32768 on Linux)."""


class PortError(PlatformError):
    """A port is taken or impossible; the message names it, its holder and the setting that moves it."""


@dataclass(frozen=True, kw_only=True)
class Ports:
    named: dict[str, int]
    slot: int

    def __getitem__(self, name: str) -> int:
        if name in self.named:
            return self.named[name]
        return INTERNAL_BASE + self.slot * INTERNAL_COUNT + INTERNAL.index(name)

    @property
    def workers(self) -> range:
        """For Ray's worker processes."""
        return _block(WORKERS_BASE, WORKERS_COUNT, self.slot)

    @property
    def replicas_http(self) -> range:
        """For Serve's replicas, which HAProxy speaks to."""
        return _block(REPLICAS_BASE, REPLICAS_COUNT, 2 * self.slot)

    @property
    def replicas_grpc(self) -> range:
        return _block(REPLICAS_BASE, REPLICAS_COUNT, 2 * self.slot + 1)

    def all(self) -> set[int]:
        single = {self[name] for name in (*self.named, *INTERNAL)}
        return single | set(self.workers) | set(self.replicas_http) | set(self.replicas_grpc)


def _block(base: int, count: int, index: int) -> range:
    return range(base + index * count, base + (index + 1) * count)


def is_free(port: int) -> bool:
    """Tell whether no process listens on the port, on any interface."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("0.0.0.0", port))
        except OSError as error:
            if error.errno in (errno.EADDRINUSE, errno.EACCES):
                return False
            raise
    return True


def holder(port: int) -> str:
    """Name the process that listens on the port, as far as the kernel tells."""
    try:
        listeners = [
            listener for listener in psutil.net_connections("tcp") if listener.status == psutil.CONN_LISTEN
        ]
        pids = {
            listener.pid
            for listener in listeners
            if listener.laddr and listener.laddr.port == port and listener.pid
        }
        if pids:
            process = psutil.Process(min(pids))
            return f"{process.name()} (process {process.pid})"
    except psutil.Error:
        pass  # the kernel does not tell, or the process is gone
    return "another process"


class SlotClaims:
    """Keeps two platforms that start at the same moment out of one slot, until their ports are open."""

    def __init__(self, directory: Path = Path("/tmp")) -> None:
        self._directory = directory
        self._held: list[int] = []

    def __enter__(self) -> "SlotClaims":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        while self._held:
            os.close(self._held.pop())

    def claim(self, slot: int) -> bool:
        """Take the slot unless another starting platform of this user holds it."""
        path = self._directory / f"raydiology-slot-{slot}-{os.geteuid()}.lock"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return False
        self._held.append(descriptor)
        return True


def explicit_ports(env: Mapping[str, str]) -> dict[str, int]:
    """Return the ports that settings ask for.

    Raises:
        PortError: a setting is not a port number, or two ask for the same one.
    """
    chosen: dict[str, int] = {}
    for name, port in NAMED.items():
        text = env.get(port.setting)
        if not text:
            continue
        if not text.isdecimal() or not 1024 <= int(text) <= 65535:
            raise PortError(f"{port.setting} is {text!r}; set it to a port number from 1024 to 65535")
        twin = next((other for other, number in chosen.items() if number == int(text)), None)
        if twin is not None:
            raise PortError(
                f"{port.setting} and {NAMED[twin].setting} are both {text}; give each its own port"
            )
        chosen[name] = int(text)
    return chosen


def choose(
    *,
    explicit: Mapping[str, int],
    remembered: Ports | None,
    policy: str,
    free: Callable[[int], bool] = is_free,
    claim: Callable[[int], bool] = lambda slot: True,
) -> Ports:
    """Pick every port of a platform of which nothing runs yet.

    Args:
        explicit: name -> port that a setting asks for; taken means an error, whatever the policy.
        remembered: what this home used last, kept where free.
        policy: "default" (a taken port is an error), "free" (a taken one is replaced by a free one) or
            "random" (no default is even tried, so that nothing else on the machine is in the way).
        claim: keeps a slot for us, False when another platform that is just starting has it.
    Raises:
        PortError: a port is taken.
    """
    assert policy in ("default", "free", "random"), policy
    slot = _choose_slot(remembered, policy, free, claim)
    taken = set(explicit.values()) | (Ports(named={}, slot=slot).all())
    named: dict[str, int] = {}
    for name, port in NAMED.items():
        if name in explicit:
            number = explicit[name]
        elif remembered is not None:
            number = remembered.named.get(name, port.default)
        else:
            number = _random_port(taken, free) if policy == "random" else port.default
        if (number in taken and name not in explicit) or not free(number):
            if name in explicit or policy == "default":
                raise taken_error(name, number)
            number = _random_port(taken, free)
        named[name] = number
        taken.add(number)
    return Ports(named=named, slot=slot)


def taken_error(name: str, number: int) -> PortError:
    """Compose the error for a port that another process holds."""
    title = NAMED[name].title if name in NAMED else f"an internal port ({name})"
    way_out = (
        f"set {NAMED[name].setting} to a free port" if name in NAMED else "remove state.json from the home"
    )
    return PortError(
        f"port {number} for {title} is taken by {holder(number)}: stop it, {way_out}, or let "
        "`make up FREE_PORTS=1` choose"
    )


def _choose_slot(
    remembered: Ports | None, policy: str, free: Callable[[int], bool], claim: Callable[[int], bool]
) -> int:
    slots = list(range(SLOTS))
    if policy == "random":
        random.shuffle(slots)
    if remembered is not None:
        slots.insert(0, remembered.slot)
    for slot in slots:
        if claim(slot) and all(free(port) for port in sorted(Ports(named={}, slot=slot).all())):
            return slot
    raise PortError(
        f"no block of internal ports is free: each of {SLOTS} has a taken one, e.g. {WORKERS_BASE} to "
        f"{WORKERS_BASE + WORKERS_COUNT}; stop another platform with `make down` in its directory"
    )


def _random_port(taken: set[int], free: Callable[[int], bool]) -> int:
    for _ in range(500):
        number = random.choice(RANDOM_RANGE)
        if number not in taken and free(number):
            return number
    raise PortError(f"no free port found from {RANDOM_RANGE.start} to {RANDOM_RANGE.stop}")
