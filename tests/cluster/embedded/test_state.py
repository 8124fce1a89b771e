"""The state of the embedded platform, as its home keeps it."""

import os

import pytest

from cluster.embedded.home import PlatformError
from cluster.embedded.process import identify
from cluster.embedded.site import Site
from cluster.embedded.state import State


@pytest.fixture
def state(site: Site) -> State:
    return State(site.home, ports=site.ports, environment="staging", bucket_prefix="a-")


def test_what_was_recorded_is_read_again(state: State) -> None:
    state.record("ray", identify(os.getpid()))
    again = State.read(state.home)
    assert (again.ports, again.environment, again.bucket_prefix) == (state.ports, "staging", "a-")
    assert again.components == state.components
    assert again.running() == {"ray"}
    again.record("ray", None)
    assert State.read(state.home).running() == set()


def test_a_home_that_was_never_up_has_no_ports(site: Site) -> None:
    assert State.read(site.home).ports is None


def test_a_state_without_its_fields_is_damaged(state: State) -> None:
    state.home.write_state({"ports": {}})
    with pytest.raises(PlatformError, match="is damaged; remove it and run `make up`"):
        State.read(state.home)
