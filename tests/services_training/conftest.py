"""A platform with a small dataset on it, made once for all tests that train in jobs of their own."""

from dataclasses import replace
from typing import Any

import pytest

from jobs import kill_train
from jobs.kill_train import Ground


@pytest.fixture(scope="session")
def ground(platform: Any) -> Ground:
    bare = Ground(home=platform.home, env=platform.env | {"SPT_NOENV": "1"}, settings=platform.settings)
    return replace(bare, dataset_version=kill_train.dataset(bare))
