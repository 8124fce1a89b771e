"""The embedded platform's own secrets: made once, kept in its home, mode 0600.

S3 keys, PostgreSQL passwords, Ray's token, the keys that seal originals and make pseudonyms, and one API key
a role. Losing them loses the data they guard, so they are never replaced while data exists. The pair
that signs release bundles opens nothing: a lost one is replaced, and what was signed before has to be signed again.
"""

import dataclasses
import json
import secrets
from dataclasses import dataclass, field
from pathlib import Path

from cluster.embedded.home import Home, PlatformError, write_private
from cluster.releases import signatures
from cluster.secrets import KEY_BYTES

ROLES = ("client", "physician", "operator")
DATA_DIRECTORIES = ("s3", "postgresql")


@dataclass(frozen=True, kw_only=True)
class Credentials:
    s3_access_key: str
    s3_secret_key: str = field(repr=False)
    s3_internal_keys: tuple[str, ...] = field(repr=False)
    """Four keys that SeaweedFS's own parts sign their calls to one another with."""
    postgres_admin_password: str = field(repr=False)
    """Of the superuser, used only to make roles and databases."""
    postgres_password: str = field(repr=False)
    """Of role `raydiology`, owner of the database of that name."""
    mlflow_password: str = field(repr=False)
    """Of role `mlflow`, owner of `mlflowdb`."""
    api_keys: dict[str, str] = field(repr=False)
    """Role -> key; the database holds only their SHA-256."""


def generate() -> Credentials:
    """Generate new credentials."""
    return Credentials(
        s3_access_key=secrets.token_hex(10),
        s3_secret_key=secrets.token_hex(20),
        s3_internal_keys=tuple(secrets.token_hex(32) for _ in range(4)),
        postgres_admin_password=secrets.token_hex(24),
        postgres_password=secrets.token_hex(24),
        mlflow_password=secrets.token_hex(24),
        api_keys={role: f"rdg_{role}_{secrets.token_hex(24)}" for role in ROLES},
    )


def key_files(home: Home) -> dict[str, str]:
    """Return environment variable -> the file with one secret that it names."""
    return {
        "RAY_AUTH_TOKEN_PATH": str(home.path / "ray_token"),
        "RAYDIOLOGY_ENCRYPTION_KEY_PATH": str(home.path / "encryption_key"),
        "RAYDIOLOGY_PSEUDONYM_KEY_PATH": str(home.path / "pseudonym_key"),
    }


def signing_files(home: Home) -> dict[str, str]:
    """Return environment variable -> the file with one half of the key that signs release bundles."""
    return {
        "RAYDIOLOGY_SIGNING_KEY_PATH": str(home.path / "signing_key.pem"),
        "RAYDIOLOGY_VERIFYING_KEY_PATH": str(home.path / "verifying_key.pem"),
    }


def load_or_generate(home: Home) -> Credentials:
    """Load the home's credentials; the first call makes them.

    Raises:
        PlatformError: there is data, but a file that unlocks it is gone or damaged.
    """
    path = home.path / "credentials.json"
    has_data = any((home.path / name).exists() for name in DATA_DIRECTORIES)
    for lost in [str(path), *key_files(home).values()]:
        if has_data and not (home.path / lost).exists():
            raise PlatformError(
                f"{lost} is gone, and the data in {home.path} cannot be opened without it; "
                f"put it back, or remove {home.path} to start empty"
            )
    for name in key_files(home).values():
        if not (home.path / name).exists():
            write_private(home.path / name, secrets.token_hex(KEY_BYTES))
    _make_signing_key(*(Path(name) for name in signing_files(home).values()))
    if not path.exists():
        write_private(path, json.dumps(dataclasses.asdict(generate()), indent=1))
    try:
        values = json.loads(path.read_text())
        values["s3_internal_keys"] = tuple(values["s3_internal_keys"])
        return Credentials(**values)
    except (ValueError, KeyError, TypeError) as error:
        raise PlatformError(
            f"{path} is damaged; put it back, or remove {home.path} to start empty"
        ) from error


def _make_signing_key(private_key: Path, public_key: Path) -> None:
    """Make what is absent of the pair; a public half alone stays, for a home that only verifies."""
    if not private_key.exists() and not public_key.exists():
        secret, public = signatures.generate()
        write_private(private_key, secret)
        write_private(public_key, public)
    elif not public_key.exists():
        try:
            write_private(public_key, signatures.public_half(private_key))
        except signatures.SignatureError as error:
            raise PlatformError(f"{error}; put it back, or remove it to sign with a new one") from error
