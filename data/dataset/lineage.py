"""Find the version that a dataset version grew from, for its manifest. Knows no store and no database."""

import json
from collections.abc import Iterable, Mapping
from typing import Any


def parents(described: Mapping[str, Any], earlier: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the newest earlier version with the same settings and no source that this one lacks; none or one.

    A version of which every image was erased has no source left, and counts for no version's parent.

    Args:
        described: the manifest of the version, with `version`, `settings` and `sources`.
        earlier: the manifests of the versions there are, newest first.
    """
    settings = _canonical(described["settings"])
    grown_from = (
        str(manifest["version"])
        for manifest in earlier
        if manifest["version"] != described["version"]
        and manifest["sources"]
        and set(manifest["sources"]) <= set(described["sources"])
        and _canonical(manifest["settings"]) == settings
    )
    return [version for _, version in zip(range(1), grown_from, strict=False)]


def _canonical(settings: Mapping[str, Any]) -> str:
    """Return settings as they are read back from the manifest, where tuples are lists."""
    return json.dumps(settings, sort_keys=True)
