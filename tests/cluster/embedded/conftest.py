"""A site with the default ports in a folder of the test."""

from pathlib import Path

import pytest

from cluster.embedded.credentials import load_or_generate
from cluster.embedded.home import Home
from cluster.embedded.ports import NAMED, Ports
from cluster.embedded.site import Site


@pytest.fixture
def site(tmp_path: Path) -> Site:
    home = Home(tmp_path)
    named = {name: port.default for name, port in NAMED.items()}
    return Site(home=home, ports=Ports(named=named, slot=3), credentials=load_or_generate(home))
