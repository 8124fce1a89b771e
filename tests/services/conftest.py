"""Fixtures of the tests that need services besides the embedded platform."""

import os
from collections.abc import Iterator

import pytest
import ray


@pytest.fixture(scope="session")
def ray_local() -> Iterator[None]:
    """A Ray of the tests' own, in this process: two CPUs, no dashboard, no token.

    The one that another tier has started in the same session serves as well.
    """
    if ray.is_initialized():
        yield
        return
    with pytest.MonkeyPatch.context() as environment:
        if "RAY_AUTH_MODE" not in os.environ:  # another value than the one at import hangs every answer
            environment.setenv("RAY_AUTH_MODE", "disabled")
        environment.delenv("RAY_ADDRESS", raising=False)
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
