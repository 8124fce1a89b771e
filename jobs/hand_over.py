"""Carry a version from this platform's registry to another one's: from staging to the cluster that serves users.

Its bundle and those of its variants are copied, signatures and all, and registered there with their tags: verdicts of
gates and load test go with it, aliases do not. The other platform asks its own questions when the version is deployed.
Repeating it copies what is missing and brings the tags up to date.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.releases.hand_over import copy_version, settings_of
from cluster.releases.registry import VIT, Registry
from cluster.settings import Settings
from jobs.runtime import entry


@dataclass(frozen=True, kw_only=True)
class Arguments:
    to: Path
    """The other platform's environment, lines of NAME=value as in `.raydiology/env`."""
    version: str | None = None
    """Version of `xray-vit` here; default: the champion."""


def work(arguments: Arguments) -> dict[str, Any]:
    source, target = Settings.from_env(), settings_of(arguments.to)
    version = arguments.version or Registry(source).version_by_alias(VIT, "champion")
    if version is None:
        raise entry.JobError(f"{VIT} has no champion here; name a --version")
    number = copy_version(source, target, version)
    return {"version": version, "environment": target.environment, "version_there": number}


if __name__ == "__main__":
    entry.main("hand_over", Arguments, work)
