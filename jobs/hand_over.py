"""Carry a version from this platform's registry to another one's: from staging to the cluster that serves users.

Its bundle and those of its variants are copied, signatures and all, and registered there with their tags: verdicts of
gates and load test go with it, aliases do not. The other platform asks its own questions when the version is deployed.
Repeating it copies what is missing and brings the tags up to date.
"""

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cluster import bundles, progress
from cluster.bundles import BUCKET, COMMIT
from cluster.objects import ObjectStore
from cluster.registry import BUNDLE_TAG, VIT, Registry
from cluster.settings import Settings
from jobs.runtime import entry


@dataclass(frozen=True, kw_only=True)
class Arguments:
    to: Path
    """The other platform's environment, lines of NAME=value as in `.raydiology/env`."""
    version: str | None = None
    """Version of `xray-vit` here; default: the champion."""


def hand_over(source: Settings, target: Settings, version: str) -> str:
    """Returns the version's number there.

    Raises:
        RegistryError: there is no such version.
        BundleError: a file was changed, or the other platform does not trust who signed it; nothing was copied then.
    """
    registry = Registry(source)
    tags = registry.tags(VIT, version)
    trusted = replace(source, verifying_key_path=target.verifying_key_path)
    keys = registry.bundle_keys(VIT, version)
    for key in keys:
        bundles.verify(ObjectStore(trusted), key)
    for nth, key in enumerate(keys):
        progress.report("hand_over", nth, len(keys), key)
        _copy(ObjectStore(trusted), ObjectStore(target), key)
    there = Registry(target)
    told = {name: value for name, value in tags.items() if not name.startswith(BUNDLE_TAG)}
    told |= {"handed_over_from": f"{source.environment} {version}"}
    number = there.register(VIT, tags[BUNDLE_TAG], None, told)
    variants = {name: value for name, value in tags.items() if name.startswith(f"{BUNDLE_TAG}_")}
    there.set_tags(VIT, number, {**told, **variants})
    return number


def _copy(source: ObjectStore, target: ObjectStore, key: str) -> None:
    if target.exists(BUCKET, f"{key}/{COMMIT}"):
        return
    with tempfile.TemporaryDirectory() as folder:
        bundles.download(source, key, Path(folder))
        files = sorted(
            Path(folder).iterdir(), key=lambda path: path.name == COMMIT
        )  # which makes it whole, last
        for path in files:
            target.put(BUCKET, f"{key}/{path.name}", path.read_bytes())


def settings_of(path: Path) -> Settings:
    """Of another platform.

    Raises:
        SettingsError: the file lacks a name.
        OSError: it cannot be read.
    """
    lines = (line.partition("=") for line in path.read_text().splitlines() if "=" in line)
    return Settings.from_env({name.strip(): value for name, _, value in lines})


def work(arguments: Arguments) -> dict[str, Any]:
    source, target = Settings.from_env(), settings_of(arguments.to)
    version = arguments.version or Registry(source).version_by_alias(VIT, "champion")
    if version is None:
        raise entry.JobError(f"{VIT} has no champion here; name a --version")
    number = hand_over(source, target, version)
    return {"version": version, "environment": target.environment, "version_there": number}


if __name__ == "__main__":
    entry.main("hand_over", Arguments, work)
