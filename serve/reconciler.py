"""The one writer of Ray Serve's state: desired state in PostgreSQL → declarative configuration → running graph.

Serve's declarative API is whole-state, so there is one writer, behind an advisory lock. Each version's
application runs the code package of its own release bundle.
"""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx

from cluster import artefacts, bundles
from cluster.database import connect
from cluster.expected import ExpectedError
from cluster.objects import ObjectStore
from cluster.registry import LLM, VIT
from cluster.settings import Settings
from serve import desired
from serve import machine as machine_file
from serve.routing import Routes, Target

LOCK = 7_262_002
"""PostgreSQL advisory lock of the reconciler; any constant of ours will do."""
BUILDERS = {VIT: "classifier", LLM: "explainer"}
FRONT_DOOR = "front-door"
CONTROLLER = "rollout-controller"
A_DAY_S = 86_400.0
LAST_WORDS = 800
"""Characters of Serve's own message that are passed on: its end names the cause, its beginning Ray's frames."""


class DeployError(ExpectedError):
    """Serve refused the configuration, or an application did not come up; the message has Serve's own words."""


def app_name(model: str, version: str) -> str:
    """Name of the Serve application of one model version."""
    return f"{model}-v{version}"


@dataclass(frozen=True, kw_only=True)
class Deployed:
    """What runs after a reconciliation."""

    applications: dict[str, str]
    """Name → status."""
    seconds: float


def serve_config(
    routes: dict[str, Routes], front_door: str | None, machine: dict[str, Any], settings: Settings
) -> dict[str, Any]:
    """The whole declarative state for Serve.

    Args:
        routes: desired state of each model; empty means nothing is served.
        front_door: the bundle whose code it runs; None: there is none.
        machine: replicas and resources, see `serve.machine`.

    While a model has a canary its champion gives no replica up: on a rollback all traffic comes back at once.
    """
    store = ObjectStore(settings)
    applications = []
    for model, live in sorted(routes.items()):
        size = machine[BUILDERS[model]]
        for target in live.targets:
            applications.append(
                {
                    "name": app_name(model, target.version),
                    "route_prefix": None,
                    "import_path": f"serve.deployments:{BUILDERS[model]}",
                    "args": {
                        "bundle_key": target.bundle_key,
                        "threads": size["threads"],
                        "device": size["device"],
                    },
                    "runtime_env": {"working_dir": bundles.code_uri(store, target.bundle_key)},
                    "deployments": [{"name": BUILDERS[model], **_capacity(size, live, target)}],
                }
            )
    if front_door is not None:
        user_config = {"routes": {model: asdict(live) for model, live in routes.items()}}
        applications.append(
            {
                "name": CONTROLLER,
                "route_prefix": None,
                "import_path": "serve.deployments:controller",
                "args": {},
                "runtime_env": {"working_dir": bundles.code_uri(store, front_door)},
                "deployments": [{"name": "controller", **machine_file.serve_options(machine["controller"])}],
            }
        )
        applications.append(
            {
                "name": FRONT_DOOR,
                "route_prefix": "/",
                "import_path": "serve.deployments:front_door",
                "args": {"rates": machine["front_door"].get("rates", {})},
                "runtime_env": {"working_dir": bundles.code_uri(store, front_door)},
                "deployments": [
                    {
                        "name": "front_door",
                        "user_config": user_config,
                        **machine_file.serve_options(machine["front_door"]),
                    }
                ],
            }
        )
    address = urlsplit(settings.api_url)
    return {
        "proxy_location": "HeadOnly",
        "http_options": {"host": address.hostname, "port": address.port or 80},
        "logging_config": {"encoding": "JSON", "enable_access_log": False},
        "applications": applications,
    }


def _capacity(size: dict[str, Any], live: Routes, target: Target) -> dict[str, Any]:
    options = machine_file.serve_options(size)
    under_way = any(one.role == "canary" for one in live.targets)
    if "autoscaling_config" in options and target.role == "champion" and under_way:
        options["autoscaling_config"] = {**options["autoscaling_config"], "downscale_delay_s": A_DAY_S}
    return options


def reconcile(
    settings: Settings,
    *,
    timeout_s: float = 180,
    progress: Callable[[int, int, str], None] = lambda done, total, note: None,
) -> Deployed:
    """Carry out the desired state and wait until every application runs.

    Raises:
        DeployError: Serve refused, an application failed, or the time is over.
        MachineError: the machine file is none that this version of the code knows.
    """
    started_at = time.monotonic()
    with connect(settings.database_url) as connection:
        connection.execute("SELECT pg_advisory_lock(%s)", (LOCK,))
        routes = desired.read(connection)
        door = desired.front_door(connection)
        machine = machine_file.sized(desired.machine(connection))
        _verify(routes, door, settings)
        config = serve_config(routes, door, machine, settings)
        with _dashboard(settings) as dashboard:
            answer = dashboard.put("/api/serve/applications/", json=config)
            if answer.status_code != 200:
                raise DeployError(f"Serve refused the configuration: {answer.text.strip()[-LAST_WORDS:]}")
            names = {one["name"] for one in config["applications"]}
            applications = _wait(dashboard, names, started_at + timeout_s, progress)
    return Deployed(applications=applications, seconds=time.monotonic() - started_at)


def _verify(routes: dict[str, Routes], front_door: str | None, settings: Settings) -> None:
    """Of each bundle the signature and the code package, which Ray runs before any code of ours could look at it.

    The weights are verified by the replica that loads them.
    """
    store = ObjectStore(settings)
    keys = {target.bundle_key for live in routes.values() for target in live.targets}
    for key in keys | ({front_door} if front_door is not None else set()):
        bundles.verify(store, key, [artefacts.CODE])


def _dashboard(settings: Settings) -> httpx.Client:
    headers = {}
    if settings.ray_auth_token_path is not None:
        headers["Authorization"] = f"Bearer {settings.ray_auth_token_path.read_text().strip()}"
    return httpx.Client(base_url=settings.ray_api_server_address, headers=headers, timeout=60)


def statuses(settings: Settings) -> dict[str, str]:
    """Of each application that Serve knows, in its words."""
    with _dashboard(settings) as dashboard:
        answer = dashboard.get("/api/serve/applications/")
        answer.raise_for_status()
        return {name: one["status"] for name, one in answer.json()["applications"].items()}


def replicas(settings: Settings, application: str) -> int:
    """Running processes of an application."""
    with _dashboard(settings) as dashboard:
        answer = dashboard.get("/api/serve/applications/")
        answer.raise_for_status()
        deployments = answer.json()["applications"].get(application, {}).get("deployments", {})
        every = [replica for one in deployments.values() for replica in one["replicas"]]
        return sum(one["state"] == "RUNNING" for one in every)


def _wait(
    dashboard: httpx.Client,
    names: set[str],
    ends_at: float,
    progress: Callable[[int, int, str], None],
) -> dict[str, str]:
    """Poll until all of `names` are RUNNING."""
    status: dict[str, str] = {}
    while True:
        answer = dashboard.get("/api/serve/applications/")
        answer.raise_for_status()
        found = answer.json()["applications"]
        status = {name: found.get(name, {}).get("status", "NOT_STARTED") for name in sorted(names)}
        running = [name for name, one in status.items() if one == "RUNNING"]
        waiting = ", ".join(name for name, one in status.items() if one != "RUNNING")
        progress(len(running), len(names), f"waiting for {waiting}" if waiting else "all applications run")
        if not waiting:
            return status
        failed = [name for name, one in status.items() if one in ("DEPLOY_FAILED", "UNHEALTHY")]
        if failed:
            words = "; ".join(f"{name}: {found[name].get('message', '')[-LAST_WORDS:]}" for name in failed)
            raise DeployError(f"an application did not come up: {words}")
        if time.monotonic() > ends_at:
            raise DeployError(f"still waiting for {waiting}: {status}; Serve's logs say why")
        time.sleep(0.5)
