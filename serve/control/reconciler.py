"""The one writer of Ray Serve's state: desired state in PostgreSQL → declarative configuration → running graph.

Serve's declarative API is whole-state, so there is one writer, behind an advisory lock. Each version's
application runs the code package of its own release bundle.
"""

import time
from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx

from cluster.database import connect
from cluster.expected import ExpectedError
from cluster.objects import ObjectStore
from cluster.progress import OnProgress, silent
from cluster.releases import artefacts, bundles
from cluster.releases.registry import LLM, VIT
from cluster.settings import Settings
from serve.control import resources as machine_file
from serve.routing import desired_state
from serve.routing.routes import Routes, Target, app_name

LOCK = 7_262_002
"""PostgreSQL advisory lock of the reconciler; an arbitrary constant."""
BUILDERS = {VIT: "classifier", LLM: "explainer"}
FRONT_DOOR = "front-door"
CONTROLLER = "rollout-controller"
A_DAY_S = 86_400.0
MESSAGE_CHARACTERS = 800
"""Of Serve's own message, from its end, which names the cause; it begins with Ray's frames."""


class DeployError(ExpectedError):
    """Serve refused the configuration, an application did not start, or the API is not ready; one line."""


@dataclass(frozen=True, kw_only=True)
class Deployed:
    """What runs after a reconciliation."""

    applications: dict[str, str]
    """Name → status."""
    seconds: float


def serve_config(
    routes: dict[str, Routes], front_door: str | None, machine: dict[str, Any], settings: Settings
) -> dict[str, Any]:
    """Build the whole declarative state for Serve.

    Args:
        routes: desired state of each model; empty means no version is served.
        front_door: the bundle whose code the front door and the controller run; None: there are none.
        machine: replicas and resources, see `serve.control.resources`.
    """
    store = ObjectStore(settings)
    applications = [
        _version_application(store, live, target, machine[BUILDERS[model]])
        for model, live in sorted(routes.items())
        for target in live.targets
    ]
    if front_door is not None:
        code = bundles.code_uri(store, front_door)
        applications += [
            _controller_application(code, machine["controller"]),
            _front_door_application(code, machine["front_door"], routes),
        ]
    address = urlsplit(settings.api_url)
    return {
        "proxy_location": "HeadOnly",
        "http_options": {"host": address.hostname, "port": address.port or 80},
        "logging_config": {"encoding": "JSON", "enable_access_log": False},
        "applications": applications,
    }


def _version_application(
    store: ObjectStore, live: Routes, target: Target, size: dict[str, Any]
) -> dict[str, Any]:
    """Describe the application of one version, which runs the code of its own bundle."""
    builder = BUILDERS[live.model]
    return {
        "name": app_name(live.model, target.version),
        "route_prefix": None,
        "import_path": f"serve.deployments:{builder}",
        "args": {"bundle_key": target.bundle_key, "threads": size["threads"], "device": size["device"]},
        "runtime_env": {"working_dir": bundles.code_uri(store, target.bundle_key)},
        "deployments": [{"name": builder, **_capacity(size, live, target)}],
    }


def _controller_application(code: str, size: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": CONTROLLER,
        "route_prefix": None,
        "import_path": "serve.deployments:controller",
        "args": {},
        "runtime_env": {"working_dir": code},
        "deployments": [{"name": "controller", **machine_file.serve_options(size)}],
    }


def _front_door_application(code: str, size: dict[str, Any], routes: dict[str, Routes]) -> dict[str, Any]:
    user_config = {"routes": {model: asdict(live) for model, live in routes.items()}}
    deployment = {"name": "front_door", "user_config": user_config, **machine_file.serve_options(size)}
    return {
        "name": FRONT_DOOR,
        "route_prefix": "/",
        "import_path": "serve.deployments:front_door",
        "args": {"rates": size.get("rates", {})},
        "runtime_env": {"working_dir": code},
        "deployments": [deployment],
    }


def _capacity(size: dict[str, Any], live: Routes, target: Target) -> dict[str, Any]:
    """Size one version's deployment.

    While a model has a canary its champion keeps all replicas: on a rollback all traffic comes back at once.
    """
    options = machine_file.serve_options(size)
    has_canary = any(other.role == "canary" for other in live.targets)
    if "autoscaling_config" in options and target.role == "champion" and has_canary:
        options["autoscaling_config"] = {**options["autoscaling_config"], "downscale_delay_s": A_DAY_S}
    return options


def reconcile(
    settings: Settings,
    *,
    timeout_s: float = 180,
    progress: OnProgress = silent,
) -> Deployed:
    """Apply the desired state and wait until every application runs.

    Raises:
        DeployError: Serve refused, an application failed, or the time is over.
        MachineError: this version of the code does not know the machine file's format.
    """
    started_at = time.monotonic()
    with connect(settings.database_url) as connection:
        connection.execute("SELECT pg_advisory_lock(%s)", (LOCK,))
        routes = desired_state.read(connection)
        door = desired_state.front_door(connection)
        machine = machine_file.sized(desired_state.machine(connection))
        _verify(routes, door, settings)
        config = serve_config(routes, door, machine, settings)
        with _dashboard(settings) as dashboard:
            answer = dashboard.put("/api/serve/applications/", json=config)
            if answer.status_code != 200:
                raise DeployError(
                    f"Serve refused the configuration: {answer.text.strip()[-MESSAGE_CHARACTERS:]}"
                )
            names = {application["name"] for application in config["applications"]}
            applications = _wait(dashboard, names, started_at + timeout_s, progress)
    return Deployed(applications=applications, seconds=time.monotonic() - started_at)


def _verify(routes: dict[str, Routes], front_door: str | None, settings: Settings) -> None:
    """Verify each bundle's signature and code package, which Ray runs before any code of ours could check it.

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
    """Return the status of each application that Serve knows, in its words."""
    with _dashboard(settings) as dashboard:
        answer = dashboard.get("/api/serve/applications/")
        answer.raise_for_status()
        return {name: details["status"] for name, details in answer.json()["applications"].items()}


def replicas(settings: Settings, application: str) -> int:
    """Count the running processes of an application."""
    with _dashboard(settings) as dashboard:
        answer = dashboard.get("/api/serve/applications/")
        answer.raise_for_status()
        deployments = answer.json()["applications"].get(application, {}).get("deployments", {})
        states = [replica["state"] for details in deployments.values() for replica in details["replicas"]]
        return states.count("RUNNING")


def _wait(
    dashboard: httpx.Client,
    names: set[str],
    ends_at: float,
    progress: OnProgress,
) -> dict[str, str]:
    """Poll until all of `names` are RUNNING."""
    while True:
        answer = dashboard.get("/api/serve/applications/")
        answer.raise_for_status()
        applications = answer.json()["applications"]
        status = {name: applications.get(name, {}).get("status", "NOT_STARTED") for name in sorted(names)}
        waiting = ", ".join(name for name, state in status.items() if state != "RUNNING")
        running = sum(state == "RUNNING" for state in status.values())
        progress(running, len(names), f"waiting for {waiting}" if waiting else "all applications run")
        if not waiting:
            return status
        failed = [name for name, state in status.items() if state in ("DEPLOY_FAILED", "UNHEALTHY")]
        if failed:
            messages = {name: applications[name].get("message", "")[-MESSAGE_CHARACTERS:] for name in failed}
            details = "; ".join(f"{name}: {message}" for name, message in messages.items())
            raise DeployError(f"an application did not come up: {details}")
        if time.monotonic() > ends_at:
            raise DeployError(f"still waiting for {waiting}: {status}; Serve's logs say why")
        time.sleep(0.5)
