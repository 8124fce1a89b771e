"""Puts a version of the classifier in front of users, and Ray Serve in line with what is desired.

A deployment is a change of the desired state in PostgreSQL; aliases of the registry follow it. `apply_desired_state`
then has the reconciler start and end replicas. Versions enter an environment only if they have passed what it asks for.
"""

import time
from typing import Any, Literal

import httpx

from cluster.database import connect
from cluster.objects import ObjectStore
from cluster.progress import OnProgress
from cluster.releases import bundles
from cluster.releases.registry import LLM, VIT, Registry
from cluster.settings import Settings
from serve.control import environments, rollout_store, staged_versions
from serve.control.admission import admit
from serve.control.environments import Environment
from serve.control.reconciler import DeployError, reconcile
from serve.control.rollout_view import summarise
from serve.control.start import start_rollout
from serve.routing import desired_state

READY_S = 120.0
LOOK_S = 0.5
Stage = Literal["development", "staging", "canary", "production"]


def champion_of(settings: Settings) -> str | None:
    """Return the version of `xray-vit` that is served; None before the first one."""
    with connect(settings.database_url) as connection:
        live = desired_state.read(connection).get(VIT)
    return None if live is None else live.champion.version


def let_in(settings: Settings, version: str, environment: Environment, *, served: str | None) -> None:
    """Check that a version has passed what an environment asks for.

    A version that is served already needs no load test, and neither does the first one: it has no users yet to keep
    waiting, and no front door to send a load to.

    Raises:
        AdmissionError: it has not passed.
    """
    spared = "load_test" if served in (None, version) else None
    asks_for = [check for check in environment.asks_for if check != spared]
    tags = Registry(settings).tags(VIT, version)
    admit(
        VIT, version, tags, environment=environment.name, asks_for=asks_for, load_rate=environment.load_rate
    )


def cut_over(settings: Settings, version: str, *, actor: str, stage: str | None = None) -> None:
    """Make a version of `xray-vit` the champion, together with the champion of `xray-llm`.

    Args:
        stage: the environment, if it is not the platform's.
    Raises:
        AdmissionError: the version has not passed what is asked for.
        BundleError: a file of its bundle, or the bundle's signature, is not what was published.
    """
    environment = environments.environments(settings)[stage or settings.environment]
    let_in(settings, version, environment, served=champion_of(settings))
    registry = Registry(settings)
    explainer = registry.version_by_alias(LLM, "champion")
    keys = {VIT: registry.bundle_key(VIT, version)}
    if explainer is not None:
        keys[LLM] = registry.bundle_key(LLM, explainer)
    for key in keys.values():
        bundles.verify(ObjectStore(settings), key)
    previous = registry.version_by_alias(VIT, "champion")
    with connect(settings.database_url) as connection:
        rollout = rollout_store.under_way(connection, VIT)
        if rollout is not None:
            rollout_store.roll_back(
                connection, rollout, actor=actor, why=f"version {version} is deployed at once"
            )
        desired_state.cut_over(connection, model=VIT, version=version, bundle_key=keys[VIT], actor=actor)
        if explainer is not None:
            desired_state.cut_over(
                connection, model=LLM, version=explainer, bundle_key=keys[LLM], actor=actor
            )
    _move_aliases(registry, version, previous)


def _move_aliases(registry: Registry, version: str, previous: str | None) -> None:
    if previous is not None and previous != version:
        registry.set_alias(VIT, "previous", previous)
    registry.set_alias(VIT, "champion", version)
    if registry.version_by_alias(VIT, "challenger") == version:
        registry.remove_alias(VIT, "challenger")


def enter(settings: Settings, version: str, stage: Stage, *, actor: str) -> dict[str, Any]:
    """Bring a version to one of the environments of this platform; returns the `rollout`, if one starts.

    Raises:
        AdmissionError: the version has not passed what is asked for.
        NotServedError: no version is served yet, beside which it could stand.
    """
    environment = environments.environments(settings)[stage]
    if stage == "production":
        cut_over(settings, version, actor=actor, stage=stage)
        return {}
    if stage == "canary":  # traffic comes by a rollout, whose guardrails watch the version
        started = start_rollout(
            settings, model=VIT, version=version, steps=[0.0, environment.share], stage=stage, actor=actor
        )
        return {"rollout": summarise(*started)}
    let_in(settings, version, environment, served=champion_of(settings))
    key = Registry(settings).bundle_key(VIT, version)
    bundles.verify(ObjectStore(settings), key)
    with connect(settings.database_url) as connection:
        staged_versions.enter(
            connection,
            model=VIT,
            version=version,
            bundle_key=key,
            share=environment.share,
            mirror=environment.mirror,
            actor=actor,
        )
    return {}


def leave(settings: Settings, version: str, *, actor: str) -> None:
    """Take a version out of development or staging.

    Raises:
        NotServedError, RoutingError: it is not there.
    """
    with connect(settings.database_url) as connection:
        staged_versions.leave(connection, model=VIT, version=version, actor=actor)


def set_resources(settings: Settings, resources: dict[str, Any], *, actor: str) -> None:
    """Store how this site's replicas and resources differ from the default, for `apply_desired_state` to take up."""
    with connect(settings.database_url) as connection:
        desired_state.set_machine(connection, resources, actor=actor)


def apply_desired_state(settings: Settings, report: OnProgress) -> dict[str, Any]:
    """Reconcile Ray Serve, then wait until the API is ready; returns the applications and how long it took.

    Args:
        report: progress: done, total, a line for people.
    Raises:
        DeployError: Serve refuses, an application fails, or the API is not ready in time.
    """
    deployed = reconcile(settings, progress=report)
    if not deployed.applications:
        return {"applications": {}, "note": "nothing has been deployed yet; `make demo` trains a first model"}
    _wait_until_ready(settings.api_url)
    return {
        "applications": deployed.applications,
        "api": settings.api_url,
        "seconds": round(deployed.seconds, 1),
    }


def _wait_until_ready(api_url: str) -> None:
    ends_at, answer = time.monotonic() + READY_S, ""
    while time.monotonic() < ends_at:
        try:
            response = httpx.get(f"{api_url}/readyz", timeout=5)
            answer = response.text[:500]
            if response.status_code == 200:
                return
        except httpx.HTTPError as error:
            answer = type(error).__name__
        time.sleep(LOOK_S)
    raise DeployError(f"the API at {api_url} is not ready after {READY_S:.0f} s: {answer}")
