"""Put a model version in front of users: desired state in PostgreSQL, then Ray Serve through the reconciler.

`--version N` cuts over to a version that has passed what the environment asks for (`--restore` serves again what was
served before, as `make up` does; `--machine FILE` only changes how much machine there is). The version before stays
warm; aliases follow. Canary steps are `jobs.rollout`'s. Where one platform has all environments, `--stage` says which
of them the version enters (docs/environments.md).
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from cluster import progress
from cluster.releases.registry import VIT, Registry
from cluster.settings import Settings
from jobs.runtime import entry
from serve.control import resources as machine
from serve.control.deploy import Stage, apply_desired_state, cut_over, enter, leave, set_resources

ACTOR = "jobs.deploy"


@dataclass(frozen=True, kw_only=True)
class Arguments:
    version: str | None = None
    """Version of `xray-vit` to serve; default: the champion."""
    restore: bool = False
    """Only bring Ray Serve to the desired state that is stored; well when nothing was ever deployed."""
    machine: Path | None = None
    """A file with what this site wants otherwise than `serve/control/resources.yaml`; kept until another one
    comes. Versions stay as they are, unless --version is given too."""
    stage: Stage | None = None
    """Which environment the version enters, on a platform that has them all; default: it becomes the champion."""
    end: bool = False
    """Take a version out that was brought to development or staging."""

    def __post_init__(self) -> None:
        if (self.stage is not None or self.end) and (self.version is None or self.restore):
            raise ValueError("--stage and --end take a --version, and no --restore")
        if self.stage is not None and self.end:
            raise ValueError("--stage and --end exclude each other: give one")


def work(arguments: Arguments) -> dict[str, Any]:
    settings = Settings.from_env()
    resources = None if arguments.machine is None else machine.read(arguments.machine)
    result: dict[str, Any] = {}
    if arguments.version is not None and arguments.end:
        leave(settings, arguments.version, actor=ACTOR)
    elif arguments.version is not None and arguments.stage is not None:
        result = enter(settings, arguments.version, arguments.stage, actor=ACTOR)
    elif not (arguments.restore or (arguments.machine is not None and arguments.version is None)):
        version = arguments.version or Registry(settings).version_by_alias(VIT, "champion")
        if version is None:
            raise entry.JobError(f"{VIT} has no champion; run `python -m jobs.pipeline`, or name a --version")
        cut_over(settings, version, actor=ACTOR)
    if resources is not None:
        set_resources(settings, resources, actor=ACTOR)
    return {**result, **apply_desired_state(settings, partial(progress.report, "deploy"))}


if __name__ == "__main__":
    entry.run("deploy", lambda: work(entry.parse(Arguments, "deploy")))
