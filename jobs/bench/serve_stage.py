"""A platform with versions in front of users, for the serving benchmarks, and the peers beside it.

All versions have the same weights, from a seed: what they are changes no time. Each bundle brings the working tree's
own code with a machine file that fixes the number of replicas: a figure in which the autoscaler moves says nothing.
"""

import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import httpx
import psutil

from cluster.database import connect
from cluster.embedded.process import COMPONENT_MARK, HOME_MARK, marked, sweep
from cluster.objects import ObjectStore
from cluster.releases import bundles, code_package
from cluster.releases.registry import VIT
from cluster.settings import PROJECT_ROOT, Settings
from data.imaging.preprocess import PREPROCESS_VERSION, PixelConfig
from data.model_card import CARD_FILE, WEIGHTS_FILE, Architecture, Calibration, ModelCard
from data.taxonomy import taxonomy
from jobs.runtime.entry import JobError
from jobs.runtime.throwaway_platform import OwnPlatform, own_platform
from jobs.runtime.waiting import wait_for
from serve.control import reconciler, staged_versions
from serve.control import resources as machine_file
from serve.routing import desired_state
from serve.routing import routes as routing
from serve.routing.routes import Routes

READY_S = 150.0
ROOMS = (*code_package.ROOMS, "jobs")
"""With this one, for the benchmark's own applications."""
TIMM, SIDE = "vit_tiny_patch16_224", 224
ACTOR = "bench"
Peer = Literal["litserve", "stock", "litserve_vit", "fastapi_vit"]
"""See `jobs.bench.serve_peers`."""
QUIET_THREADS = {"OMP_WAIT_POLICY": "PASSIVE", "OMP_NUM_THREADS": "2"}
"""As under Ray and `serve/control/resources.yaml`; threads that spin, or more of them than cores, starve each other."""
PEER_READY_S = 120.0
HOST = "127.0.0.1"


@dataclass(frozen=True, kw_only=True)
class Stage:
    platform: OwnPlatform
    folder: Path
    """For files of the benchmark."""
    machine: dict[str, Any]

    @property
    def settings(self) -> Settings:
        return self.platform.settings

    @property
    def url(self) -> str:
        return f"{self.settings.api_url}/v1/predictions"

    def serving(self) -> list[psutil.Process]:
        """List the processes of Ray and all that serves: HAProxy, front door, versions, Serve's own."""
        return self.platform.processes("ray")

    def component(self, name: str) -> Callable[[], list[psutil.Process]]:
        return partial(self.platform.processes, name)

    def peer(self, name: str) -> Callable[[], list[psutil.Process]]:
        """Return a function that lists what was started in the environment `marked_env` of this name."""
        return partial(marked, f"{self.platform.home.id}-{name}")

    def put(self, versions: Mapping[str, str], weights: Mapping[str, float]) -> None:
        """Make the first version (name → bundle) the champion and give the others these shares.

        They are staged ones: the controller ends a canary without weight that no rollout wants.
        """
        (first, key), *others = versions.items()
        with connect(self.settings.database_url) as connection:
            desired_state.cut_over(connection, model=VIT, version=first, bundle_key=key, actor=ACTOR)
            for version, bundle_key in others:
                staged_versions.enter(
                    connection, model=VIT, version=version, bundle_key=bundle_key, actor=ACTOR
                )
        self.weigh(weights)

    def weigh(self, weights: Mapping[str, float]) -> None:
        self.change("1", partial(routing.set_weights, weights=weights))

    def change(self, version: str, changed: Callable[[Routes], Routes]) -> None:
        with connect(self.settings.database_url) as connection:
            desired_state.change(connection, VIT, version, changed, actor=ACTOR, action="bench")

    def bring_up(self, *, builders: str | None = None) -> None:
        """Start what the routes name, as the reconciler does, and wait until it answers.

        Args:
            builders: a module whose `front_door` and `classifier` stand in for the product's, without a controller.
        """
        if builders is None:
            with connect(self.settings.database_url) as connection:
                desired_state.set_machine(connection, self.machine, actor=ACTOR)
            reconciler.reconcile(self.settings)
        else:
            self._put_applications(builders)
        url = f"{self.settings.api_url}/readyz"

        def ready() -> bool:
            return not _refusal(url) and {*reconciler.statuses(self.settings).values()} == {"RUNNING"}

        def late() -> JobError:
            return JobError(
                f"a benchmark's serving graph is not ready after {READY_S:.0f} s: {_refusal(url)}"
            )

        wait_for(ready, READY_S, late)

    def _put_applications(self, builders: str) -> None:
        with connect(self.settings.database_url) as connection:
            routes, door = desired_state.read(connection), desired_state.front_door(connection)
        config = reconciler.serve_config(routes, door, self.machine, self.settings)
        apps = [app for app in config["applications"] if app["name"] != reconciler.CONTROLLER]
        for app in apps:
            app["import_path"] = f"{builders}:{app['import_path'].partition(':')[2]}"
        token = self.settings.ray_auth_token_path
        headers = {"Authorization": f"Bearer {token.read_text().strip()}"} if token is not None else {}
        answer = httpx.put(
            f"{self.settings.ray_api_server_address}/api/serve/applications/",
            json={**config, "applications": apps},
            headers=headers,
            timeout=60,
        )
        if answer.status_code != 200:
            raise JobError(f"Serve refused a benchmark's applications: {answer.text[-400:]}")


def _refusal(url: str) -> str:
    """Return why a server is not ready; empty if it answers with 200."""
    try:
        answer = httpx.get(url, timeout=5)
    except httpx.HTTPError as error:
        return type(error).__name__
    return "" if answer.status_code == 200 else f"{answer.status_code} {answer.text[:200]}"


@contextmanager
def staged() -> Iterator[Stage]:
    with own_platform() as platform, tempfile.TemporaryDirectory(prefix="raydiology-bench-") as folder:
        machine = fixed_machine(machine_file.sized({}))
        for room in ROOMS:
            shutil.copytree(
                PROJECT_ROOT / room, Path(folder) / room, ignore=shutil.ignore_patterns("__pycache__")
            )
        yield Stage(platform=platform, folder=Path(folder), machine=machine)


def fixed_machine(machine: Mapping[str, Any]) -> dict[str, Any]:
    """Set one replica of everything in a machine file, and no limit on what a key may send."""
    fixed = {}
    for name, size in machine.items():
        fixed[name] = {field: value for field, value in size.items() if field != "autoscaling_config"}
        fixed[name]["num_replicas"] = 1
    fixed["front_door"]["rates"] = {"client": {"per_s": 1e9, "burst": 10**9}}
    return fixed


def publish(stage: Stage, number: int, *, side: int = SIDE, weights: bool) -> str:
    """Publish a signed bundle; returns its key.

    Args:
        number: makes it another one, with the same weights, so that no guardrail finds a difference.
        weights: whether it holds a ViT-tiny, or only what the door reads.
    """
    card = ModelCard(
        model=VIT,
        classes=tuple(taxonomy().names),
        architecture=Architecture(timm=TIMM, kwargs=_kwargs(side)),
        pixels=PixelConfig(side=side),
        preprocess_version=PREPROCESS_VERSION,
        calibration=Calibration(temperature=1.0, conformal_threshold=0.4, coverage=0.9, abstain_below=0.3),
        dataset_version=f"bench-{number}",
        synthetic=True,
    )
    files = {CARD_FILE: card.to_json(), "code.zip": code_package.build(stage.folder, ROOMS)}
    if weights:
        files[WEIGHTS_FILE] = _weights(side)
    return bundles.publish(ObjectStore(stage.settings), files)


def _kwargs(side: int) -> dict[str, Any]:
    return {"in_chans": 1, "num_classes": len(taxonomy().names), "img_size": side}


def _weights(side: int) -> bytes:
    import safetensors.torch
    import timm
    import torch

    torch.manual_seed(0)
    blob: bytes = safetensors.torch.save(
        timm.create_model(TIMM, pretrained=False, **_kwargs(side)).state_dict()
    )
    return blob


@contextmanager
def marked_env(platform: OwnPlatform, name: str) -> Iterator[dict[str, str]]:
    """Make a peer's environment: nothing of the platform's but a mark, by which its processes are found and ended."""
    mark = f"{platform.home.id}-{name}"
    settings = ("RAYDIOLOGY_", "RAY_", "AWS_", "MLFLOW_")
    env = {key: value for key, value in platform.env.items() if not key.startswith(settings)}
    try:
        ray = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
        ray["RAY_USAGE_STATS_ENABLED"] = "0"
        yield {**env, **ray, HOME_MARK: mark, COMPONENT_MARK: name, "SPT_NOENV": "1", **QUIET_THREADS}
    finally:
        sweep(mark)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def start_peer(
    peer: Peer, env: dict[str, str], log: Path, *, bundle: Path | None = None, **options: int
) -> str:
    """Start a peer and wait until it answers; returns where to post to. `marked_env` ends it."""
    port = free_port()
    given = {"peer": peer, "port": port, **({"bundle": bundle} if bundle else {}), **options}
    flags = [f"--{name}={value}" for name, value in given.items()]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "jobs.bench.serve_peers", *flags],
            cwd=PROJECT_ROOT,
            env=env,
            stdout=output,
            stderr=output,
        )

    def failure() -> JobError:
        return JobError(f"the peer {peer} did not start: {log.read_text()[-300:]}")

    def ready() -> bool:
        if process.poll() is not None:
            raise failure()
        return not _refusal(f"http://{HOST}:{port}/openapi.json")

    wait_for(ready, PEER_READY_S, failure)
    return f"http://{HOST}:{port}/predict"
