"""From which version a dataset version grew: `etl` asks it for the manifest. Knows no store and no database."""

import json
from collections.abc import Iterable, Mapping
from typing import Any


def parents(described: Mapping[str, Any], earlier: Iterable[Mapping[str, Any]]) -> list[str]:
    """The newest earlier version that has the same settings and no source that this one lacks; none or one.

    A version of which every image was forgotten has no source left, and nothing grew from it that could be told.

    Args:
        described: the manifest of the version, with `version`, `settings` and `sources`.
        earlier: the manifests of the versions there are, newest first.
    """
    settings = _canonical(described["settings"])
    grown_from = (
        str(one["version"])
        for one in earlier
        if one["version"] != described["version"]
        and one["sources"]
        and set(one["sources"]) <= set(described["sources"])
        and _canonical(one["settings"]) == settings
    )
    return [version for _, version in zip(range(1), grown_from, strict=False)]


def _canonical(settings: Mapping[str, Any]) -> str:
    """As it would be read back from the manifest: tuples are lists there."""
    return json.dumps(settings, sort_keys=True)
