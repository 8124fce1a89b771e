"""Put a model version in front of users: desired state in PostgreSQL, then Ray Serve through the reconciler.

`--version N` cuts over to a version that has passed what the environment asks for (`--restore` serves again what was
served before, as `make up` does; `--machine FILE` only changes how much machine there is). The version before stays
warm; aliases follow. Canary steps are `jobs.rollout`'s. Where one platform has all environments, `--stage` says which
of them the version enters (docs/environments.md).
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import httpx

from cluster import bundles, progress
from cluster.database import connect
from cluster.objects import ObjectStore
from cluster.registry import LLM, VIT, Registry
from cluster.settings import Settings
from jobs.runtime import entry
from serve import desired, environments, machine, operator_calls, rollouts, standby
from serve.admission import admit
from serve.controller import summary
from serve.environments import Environment
from serve.reconciler import reconcile

READY_S = 120.0
Stage = Literal["development", "staging", "canary", "production"]
ACTOR = "jobs.deploy"
Progress = Callable[[int, int, str], None]


@dataclass(frozen=True, kw_only=True)
class Arguments:
    version: str | None = None
    """Version of `xray-vit` to serve; default: the champion."""
    restore: bool = False
    """Only bring Ray Serve to the desired state that is stored; well when nothing was ever deployed."""
    machine: Path | None = None
    """A file with what this site wants otherwise than `serve/machine.yaml`; kept until another one comes. Versions stay
    as they are, unless --version is given too."""
    stage: Stage | None = None
    """Which environment the version enters, on a platform that has them all; default: it becomes the champion."""
    end: bool = False
    """Take a version out that was brought to development or staging."""

    def __post_init__(self) -> None:
        if (self.stage is not None or self.end) and (self.version is None or self.restore):
            raise ValueError("--stage and --end take a --version, and no --restore")
        if self.stage is not None and self.end:
            raise ValueError("--stage and --end exclude each other: give one")


def champion_of(settings: Settings) -> str | None:
    """The version of `xray-vit` that is served; None before the first one."""
    with connect(settings.database_url) as connection:
        live = desired.read(connection).get(VIT)
    return None if live is None else live.champion.version


def let_in(settings: Settings, version: str, where: Environment, *, served: str | None) -> None:
    """Ask what an environment asks for. No load test is asked of a version that is served already, nor of the first
    one, behind which there is nobody whom it could keep waiting, and no front door to send a load to.

    Raises:
        AdmissionError: it has not passed.
    """
    spared = "load_test" if served in (None, version) else None
    asks_for = [one for one in where.asks_for if one != spared]
    tags = Registry(settings).tags(VIT, version)
    admit(VIT, version, tags, environment=where.name, asks_for=asks_for, load_rate=where.load_rate)


def cut_over(settings: Settings, version: str, *, actor: str, stage: str | None = None) -> None:
    """Make a version of `xray-vit` the champion, together with the champion of `xray-llm`.

    Args:
        stage: the environment, where it is not the platform's.
    Raises:
        AdmissionError: the version has not passed what is asked for.
        BundleError: a file of its bundle, or the bundle's signature, is not what was published.
    """
    where = environments.environments(settings)[stage or settings.environment]
    let_in(settings, version, where, served=champion_of(settings))
    registry = Registry(settings)
    before = registry.version_by_alias(VIT, "champion")
    explainer = registry.version_by_alias(LLM, "champion")
    keys = {VIT: registry.bundle_key(VIT, version)}
    if explainer is not None:
        keys[LLM] = registry.bundle_key(LLM, explainer)
    for key in keys.values():
        bundles.verify(ObjectStore(settings), key)
    with connect(settings.database_url) as connection:
        under_way = rollouts.under_way(connection, VIT)
        if under_way is not None:
            rollouts.roll_back(
                connection, under_way, actor=actor, why=f"version {version} is deployed at once"
            )
        desired.cut_over(
            connection,
            model=VIT,
            version=version,
            bundle_key=keys[VIT],
            actor=actor,
        )
        if explainer is not None:
            desired.cut_over(connection, model=LLM, version=explainer, bundle_key=keys[LLM], actor=actor)
    if before is not None and before != version:
        registry.set_alias(VIT, "previous", before)
    registry.set_alias(VIT, "champion", version)
    if registry.version_by_alias(VIT, "challenger") == version:
        registry.remove_alias(VIT, "challenger")


def enter(settings: Settings, version: str, stage: Stage) -> dict[str, Any]:
    """Bring a version to one of the environments of this platform; returns what the rollout is, where one begins.

    Raises:
        AdmissionError: the version has not passed what is asked for.
        NotServedError: nothing is served yet, beside which it could stand.
    """
    where = environments.environments(settings)[stage]
    if stage == "production":
        cut_over(settings, version, actor=ACTOR, stage=stage)
        return {}
    if stage == "canary":  # with traffic comes a rollout, whose guardrails watch it
        begun = operator_calls.begin(
            settings, model=VIT, version=version, steps=[0.0, where.share], stage=stage, actor=ACTOR
        )
        return {"rollout": summary(*begun)}
    let_in(settings, version, where, served=champion_of(settings))
    key = Registry(settings).bundle_key(VIT, version)
    bundles.verify(ObjectStore(settings), key)
    with connect(settings.database_url) as connection:
        standby.enter(
            connection,
            model=VIT,
            version=version,
            bundle_key=key,
            share=where.share,
            mirror=where.mirror,
            actor=ACTOR,
        )
    return {}


def carry_out(settings: Settings, report: Progress) -> dict[str, Any]:
    """Reconcile, then wait until the API says that it is ready."""
    done = reconcile(settings, progress=report)
    if not done.applications:
        return {"applications": {}, "note": "nothing has been deployed yet; `make demo` trains a first model"}
    ends_at = time.monotonic() + READY_S
    said = ""
    while time.monotonic() < ends_at:
        try:
            answer = httpx.get(f"{settings.api_url}/readyz", timeout=5)
            said = answer.text[:500]
            if answer.status_code == 200:
                return {
                    "applications": done.applications,
                    "api": settings.api_url,
                    "seconds": round(done.seconds, 1),
                }
        except httpx.HTTPError as error:
            said = type(error).__name__
        time.sleep(0.5)
    raise entry.JobError(f"the API at {settings.api_url} is not ready after {READY_S:.0f} s: {said}")


def work(arguments: Arguments) -> dict[str, Any]:
    settings = Settings.from_env()
    wanted = None if arguments.machine is None else machine.read(arguments.machine)
    found: dict[str, Any] = {}
    if arguments.version is not None and arguments.end:
        with connect(settings.database_url) as connection:
            standby.leave(connection, model=VIT, version=arguments.version, actor=ACTOR)
    elif arguments.version is not None and arguments.stage is not None:
        found = enter(settings, arguments.version, arguments.stage)
    elif not (arguments.restore or (arguments.machine is not None and arguments.version is None)):
        version = arguments.version or Registry(settings).version_by_alias(VIT, "champion")
        if version is None:
            raise entry.JobError(f"{VIT} has no champion; run `python -m jobs.pipeline`, or name a --version")
        cut_over(settings, version, actor=ACTOR)
    if wanted is not None:
        with connect(settings.database_url) as connection:
            desired.set_machine(connection, wanted, actor=ACTOR)
    told = carry_out(settings, lambda done, total, note: progress.report("deploy", done, total, note))
    return {**found, **told}


if __name__ == "__main__":
    entry.run("deploy", lambda: work(entry.parse(Arguments, "deploy")))
