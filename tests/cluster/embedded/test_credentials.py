import dataclasses
import stat
from pathlib import Path

import pytest

from cluster.embedded.credentials import ROLES, key_files, load_or_generate, signing_files
from cluster.embedded.home import Home, PlatformError
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


def test_the_signing_key_is_made_once_and_its_public_half_can_be_made_again(home: Home) -> None:
    load_or_generate(home)
    private, public = (Path(name) for name in signing_files(home).values())
    before = (private.read_text(), public.read_text())
    public.unlink()
    load_or_generate(home)
    assert (private.read_text(), public.read_text()) == before


def test_a_home_of_before_the_signing_key_gets_one(home: Home) -> None:
    load_or_generate(home)
    (home.path / "s3").mkdir()
    for name in signing_files(home).values():
        Path(name).unlink()
    load_or_generate(home)
    assert all(Path(name).exists() for name in signing_files(home).values())


def test_a_home_with_the_public_half_alone_gets_no_other_private_one(home: Home) -> None:
    load_or_generate(home)
    private, public = (Path(name) for name in signing_files(home).values())
    private.unlink()
    before = public.read_text()
    load_or_generate(home)
    assert (private.exists(), public.read_text()) == (False, before)


def test_a_damaged_signing_key_says_what_to_do(home: Home) -> None:
    load_or_generate(home)
    private, public = (Path(name) for name in signing_files(home).values())
    private.write_text("no key")
    public.unlink()
    with pytest.raises(PlatformError, match="put it back, or remove it"):
        load_or_generate(home)
