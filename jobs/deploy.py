"""Put a model version in front of users: desired state in PostgreSQL, then Ray Serve through the reconciler.

`--version N` cuts over to a version whose gates passed (`--restore` serves again what was served before, as
`make up` does; `--machine FILE` only changes how much machine there is). The version before stays warm; aliases
follow. Canary steps are `jobs.rollout`'s.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from cluster import bundles, progress
from cluster.database import connect
from cluster.objects import ObjectStore
from cluster.registry import LLM, VIT, Registry
from cluster.settings import Settings
from jobs import entry
from serve import desired, machine, rollouts
from serve.reconciler import reconcile

READY_S = 120.0
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


def cut_over(settings: Settings, version: str, *, actor: str) -> None:
    """Make a version of `xray-vit` the champion, together with the champion of `xray-llm`.

    Raises:
        JobError: the version has not passed its gates.
        BundleError: a file of its bundle, or the bundle's signature, is not what was published.
    """
    registry = Registry(settings)
    if registry.tags(VIT, version).get("verdict") != "pass":
        raise entry.JobError(
            f"{VIT} version {version} has not passed its gates; run `python -m jobs.evaluate` for it first"
        )
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
    if arguments.machine is not None:
        wanted = machine.read(arguments.machine)
        with connect(settings.database_url) as connection:
            desired.set_machine(connection, wanted, actor="jobs.deploy")
    if not (arguments.restore or (arguments.machine is not None and arguments.version is None)):
        version = arguments.version or Registry(settings).version_by_alias(VIT, "champion")
        if version is None:
            raise entry.JobError(f"{VIT} has no champion; run `python -m jobs.pipeline`, or name a --version")
        cut_over(settings, version, actor="jobs.deploy")
    return carry_out(settings, lambda done, total, note: progress.report("deploy", done, total, note))


if __name__ == "__main__":
    entry.run("deploy", lambda: work(entry.parse(Arguments, "deploy")))
