"""Copies a model version from one platform's registry to another's: bundles, signatures and tags, no aliases."""

import tempfile
from dataclasses import replace
from pathlib import Path

from cluster import progress
from cluster.objects import ObjectStore
from cluster.releases import bundles
from cluster.releases.bundles import BUCKET, COMMIT
from cluster.releases.registry import BUNDLE_TAG, VIT, Registry
from cluster.settings import Settings


def copy_version(source: Settings, target: Settings, version: str) -> str:
    """Copy bundles and tags of a version of `xray-vit`; returns its number in the target's registry.

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
    target_registry = Registry(target)
    carried = {name: value for name, value in tags.items() if not name.startswith(BUNDLE_TAG)}
    carried |= {"handed_over_from": f"{source.environment} {version}"}
    number = target_registry.register(VIT, tags[BUNDLE_TAG], None, carried)
    variants = {name: value for name, value in tags.items() if name.startswith(f"{BUNDLE_TAG}_")}
    target_registry.set_tags(VIT, number, {**carried, **variants})
    return number


def _copy(source: ObjectStore, target: ObjectStore, key: str) -> None:
    if target.exists(BUCKET, f"{key}/{COMMIT}"):
        return
    with tempfile.TemporaryDirectory() as folder:
        bundles.download(source, key, Path(folder))
        # The commit object makes the bundle whole, so it is written last.
        files = sorted(Path(folder).iterdir(), key=lambda path: path.name == COMMIT)
        for path in files:
            target.put(BUCKET, f"{key}/{path.name}", path.read_bytes())


def settings_of(path: Path) -> Settings:
    """Read the settings of another platform from its environment file.

    Raises:
        SettingsError: the file lacks a name.
        OSError: it cannot be read.
    """
    lines = (line.partition("=") for line in path.read_text().splitlines() if "=" in line)
    return Settings.from_env({name.strip(): value for name, _, value in lines})
