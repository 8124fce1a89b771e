"""The components of the embedded platform together."""

import dataclasses
from pathlib import Path

import pytest

from cluster.embedded.component import Component
from cluster.embedded.home import PlatformError
from cluster.embedded.site import Site
from cluster.embedded.supervisor import COMPONENTS


@pytest.mark.parametrize("component", COMPONENTS, ids=lambda one: one.name)
def test_no_command_line_carries_a_secret(site: Site, component: Component) -> None:
    words = " ".join(component.command(site))
    secrets = dataclasses.asdict(site.credentials)
    flat = [*secrets.pop("api_keys").values(), *secrets.pop("s3_internal_keys"), *secrets.values()]
    assert [secret for secret in flat if secret in words] == []


def test_no_two_components_open_the_same_port() -> None:
    names = [name for component in COMPONENTS for name in component.ports]
    assert len(names) == len(set(names))


def test_a_missing_wheel_says_how_to_install_it(tmp_path: Path) -> None:
    class Missing(type(COMPONENTS[0])):  # type: ignore[misc]
        def program(self) -> Path:
            return tmp_path / "weed"

    with pytest.raises(PlatformError, match=r"is not installed .*make setup"):
        Missing().check_installed()
