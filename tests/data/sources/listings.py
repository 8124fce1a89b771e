"""Listings and refusals of the miniature data sets."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from data.downloads import archives
from data.sources import registry
from data.sources.manifest import Manifest, ManifestError, ManifestRow

Miniature = Callable[[str, Path], Path]


def listing(name: str, folder: Path) -> Manifest:
    scratch = folder.parent / f"scratch-{len(list(folder.parent.iterdir()))}"
    scratch.mkdir()
    return registry.find(name).list_images(archives.with_splits(folder, scratch))


def refusal(name: str, folder: Path) -> str:
    with pytest.raises(ManifestError) as caught:
        listing(name, folder)
    message = str(caught.value)
    assert "\n" not in message
    assert "Nothing was stored" in message
    return message


def labels(manifest: Manifest) -> Counter[str]:
    return Counter(row.label for row in manifest.rows)


def by_name(manifest: Manifest) -> dict[str, ManifestRow]:
    return {Path(row.path).name: row for row in manifest.rows}
