import json
import os
import stat
from pathlib import Path

import pytest

from cluster.embedded.home import Home, PlatformError, write_private
from cluster.settings import PROJECT_ROOT


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


def test_a_private_file_is_for_its_owner_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        write_private(tmp_path / "secret", "one")
        write_private(tmp_path / "secret", "two")
    finally:
        os.umask(before)
    assert (tmp_path / "secret").read_text() == "two"
    assert stat.S_IMODE((tmp_path / "secret").stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["secret"]


def test_the_home_and_its_directories_are_for_their_owner(home: Home) -> None:
    home.prepare()
    for path in (home.path, home.path / "logs", home.socket_directory):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
    home.socket_directory.rmdir()


def test_a_full_disk_is_one_line_that_says_how_much_is_needed(home: Home) -> None:
    with pytest.raises(PlatformError, match=r"is full: .* GiB left, 1048576 GiB needed; free some room"):
        home.prepare(min_free_bytes=2**50)
    home.socket_directory.rmdir()


def test_a_home_below_a_file_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(PlatformError, match="RAYDIOLOGY_HOME"):
        Home(tmp_path / "file" / "home").prepare()


def test_a_path_that_a_shell_would_split_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PlatformError, match="set RAYDIOLOGY_HOME"):
        Home.from_env({"RAYDIOLOGY_HOME": str(tmp_path / "my home")})


def test_two_names_of_one_home_have_one_id(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    names = [{"RAYDIOLOGY_HOME": str(tmp_path / name)} for name in ("real", "link")]
    assert Home.from_env(names[0]).id == Home.from_env(names[1]).id


def test_a_second_call_at_the_same_time_is_refused_and_told_who_is_at_work(home: Home) -> None:
    home.prepare()
    with home.locked():
        with pytest.raises(PlatformError, match=rf"at work \(process {os.getpid()}\)"), home.locked():
            pass
    with home.locked():
        pass
    home.socket_directory.rmdir()


def test_state_comes_back_as_written_and_a_damaged_one_says_what_to_do(home: Home) -> None:
    home.path.mkdir()
    assert home.read_state() == {}
    home.write_state({"ports": {"s3": 9000}})
    assert home.read_state() == json.loads('{"ports": {"s3": 9000}}')
    home.state_file.write_text("{")
    with pytest.raises(PlatformError, match="remove it"):
        home.read_state()


def test_the_project_root_holds_the_rooms() -> None:
    assert {"cluster", "data", "jobs", "serve", "train", "tune"} <= {
        path.name for path in PROJECT_ROOT.iterdir()
    }
