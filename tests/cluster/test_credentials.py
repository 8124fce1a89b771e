import dataclasses
import stat
from pathlib import Path

import pytest

from cluster.credentials import ROLES, key_files, load_or_generate
from cluster.home import Home, PlatformError
from cluster.secrets import read_key


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def test_credentials_are_made_once(home: Home) -> None:
    assert load_or_generate(home) == load_or_generate(home)


def test_every_file_is_for_its_owner_and_every_key_can_be_read(home: Home) -> None:
    load_or_generate(home)
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in home.path.iterdir())
    keys = {read_key(Path(name)) for name in key_files(home).values()}
    assert len(keys) == 3


def test_no_secret_shows_in_the_representation(home: Home) -> None:
    credentials = load_or_generate(home)
    secrets = dataclasses.asdict(credentials)
    assert set(credentials.api_keys) == set(ROLES)
    for name in ("s3_secret_key", "postgres_password", "mlflow_password"):
        assert secrets[name] not in repr(credentials)
    assert credentials.api_keys["operator"] not in repr(credentials)


@pytest.mark.parametrize("lost", ["credentials.json", "encryption_key", "ray_token"])
def test_a_lost_secret_is_not_made_anew_over_data_that_exists(home: Home, lost: str) -> None:
    load_or_generate(home)
    (home.path / "s3").mkdir()
    (home.path / lost).unlink()
    with pytest.raises(PlatformError, match=f"{lost} is gone"):
        load_or_generate(home)
    assert not (home.path / lost).exists()


def test_damaged_credentials_say_what_to_do(home: Home) -> None:
    load_or_generate(home)
    (home.path / "credentials.json").write_text('{"s3_access_key": 1}')
    with pytest.raises(PlatformError, match="is damaged"):
        load_or_generate(home)
