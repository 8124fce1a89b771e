import os
import stat
import subprocess
from pathlib import Path

import pytest

from cluster.embedded.home import Home, PlatformError
from cluster.embedded.site import Site, read_env
from cluster.settings import Settings


def test_the_written_environment_is_what_settings_read(site: Site) -> None:
    site.write_env()
    settings = Settings.from_env(read_env(site.home))
    assert settings.s3_endpoint == "http://127.0.0.1:9000"
    assert settings.ray_address == "127.0.0.1:6379"
    assert settings.database_url.endswith("@127.0.0.1:5432/raydiology")
    assert settings.client_key == site.credentials.api_keys["client"]
    assert stat.S_IMODE(site.home.env_file.stat().st_mode) == 0o600


def test_a_shell_reads_the_environment_as_we_do(site: Site) -> None:
    site.write_env()
    shell = subprocess.run(
        ["/bin/sh", "-c", f"set -a; . {site.home.env_file}; env"],
        env={},
        capture_output=True,
        text=True,
        check=True,
    )
    seen = dict(line.split("=", 1) for line in shell.stdout.splitlines())
    assert read_env(site.home).items() <= seen.items()


def test_without_an_environment_one_is_told_to_make_it(tmp_path: Path) -> None:
    with pytest.raises(PlatformError, match="make up"):
        read_env(Home(tmp_path))


def test_a_component_is_not_led_astray_by_the_callers_environment(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_PROFILE", "elsewhere")
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    monkeypatch.setenv("PGHOST", "10.0.0.1")
    env = site.component_env("s3", {})
    assert env["RAY_ADDRESS"] == "127.0.0.1:6379"
    assert not {"AWS_PROFILE", "PGHOST"} & env.keys()
    assert env["PATH"].split(os.pathsep)[0].endswith("bin")
