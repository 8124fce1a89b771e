"""Fixtures of the tests that need services besides the embedded platform."""

import os
from collections.abc import Iterator

import pytest
import ray


@pytest.fixture(scope="session")
def ray_local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A Ray of the tests' own, in this process: two CPUs, no dashboard, no token."""
    os.environ["RAY_AUTH_MODE"] = "disabled"
    ray.init(
        address="local",
        num_cpus=2,
        object_store_memory=200 * 2**20,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="warning",
    )
    yield
    ray.shutdown()
