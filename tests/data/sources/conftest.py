"""The miniature data sets as listed."""

from collections.abc import Callable
from pathlib import Path

import pytest

from data.sources.manifest import Manifest
from tests.data.sources.listings import Miniature, listing


@pytest.fixture
def listed(miniature: Miniature, tmp_path: Path) -> Callable[[str], Manifest]:
    return lambda name: listing(name, miniature(name, tmp_path / "set"))
