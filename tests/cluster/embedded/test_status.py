"""The status of the components, and how an open port is printed."""

import os
from dataclasses import replace

from cluster.embedded.process import identify
from cluster.embedded.site import Site
from cluster.embedded.state import State
from cluster.embedded.status import OpenPort, status


def test_a_platform_that_was_never_up_has_no_status(site: Site) -> None:
    assert status(site.home) == []


def test_components_are_down_until_started_and_died_when_their_process_is_gone(site: Site) -> None:
    state = State(site.home, ports=site.ports)
    state.write()
    assert [health.state for health in status(site.home)] == ["down"] * 4
    own = identify(os.getpid())
    assert own is not None
    state.record("s3", replace(own, started_ticks=own.started_ticks - 1))
    first = status(site.home)[0]
    assert (first.state, first.pid) == ("died", None)


def test_an_open_port_says_whether_it_asks_for_a_token() -> None:
    assert str(OpenPort(port=30000, process="ray::ServeRepl", asks_for_token=True)).endswith(
        "asks for a token)"
    )
    assert (
        str(OpenPort(port=29500, process="python", asks_for_token=False)) == "29500 (python, without a token)"
    )
