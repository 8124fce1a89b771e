"""What stops `up` before it starts anything: each is one line that says what to do, at once."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


def up(home: Path, **env: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("RAYDIOLOGY_")}
    return subprocess.run(
        [sys.executable, "-m", "cluster.embedded.platform", "up", "--random-ports"],
        cwd=ROOT,
        env={**inherited, "RAYDIOLOGY_HOME": str(home), **env},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_a_taken_port_names_the_port_its_holder_and_the_setting(home: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        refused = up(home, RAYDIOLOGY_S3_PORT=str(port))
    assert refused.returncode == 1
    assert len(refused.stderr.splitlines()) == 1
    for word in (f"port {port}", "S3", f"process {os.getpid()}", "RAYDIOLOGY_S3_PORT"):
        assert word in refused.stderr
    assert not (home / "env").exists()


def test_a_port_that_is_none_is_refused(home: Path) -> None:
    refused = up(home, RAYDIOLOGY_SERVE_PORT="http")
    assert refused.returncode == 1
    assert "RAYDIOLOGY_SERVE_PORT is 'http'" in refused.stderr


def test_a_home_with_a_space_is_refused(tmp_path: Path) -> None:
    refused = up(tmp_path / "my home")
    assert refused.returncode == 1
    assert "set RAYDIOLOGY_HOME" in refused.stderr


@pytest.mark.parametrize("verb", ["status", "down"])
def test_before_the_first_up_there_is_nothing_to_see_and_nothing_to_stop(home: Path, verb: str) -> None:
    said = subprocess.run(
        [sys.executable, "-m", "cluster.embedded.platform", verb],
        cwd=ROOT,
        env={**os.environ, "RAYDIOLOGY_HOME": str(home)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert said.returncode == (1 if verb == "status" else 0)
    assert "Traceback" not in said.stderr
    assert not home.exists()
