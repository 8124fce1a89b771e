"""The embedded platform's own secrets: made once, kept in its home, mode 0600.

S3 keys, PostgreSQL passwords, Ray's token, the keys that seal originals and make pseudonyms, and one API key
a role. Losing them loses the data they guard, so nothing here ever makes them anew over data that exists.
"""

import dataclasses
import json
import secrets
from dataclasses import dataclass, field

from cluster.home import Home, PlatformError, write_private
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
    """Of the superuser, who only makes roles and databases."""
    postgres_password: str = field(repr=False)
    """Of role `raydiology`, owner of the database of that name."""
    mlflow_password: str = field(repr=False)
    """Of role `mlflow`, owner of `mlflowdb`."""
    api_keys: dict[str, str] = field(repr=False)
    """Role -> key; the database holds only their SHA-256."""


def generate() -> Credentials:
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
    """Environment variable -> the file with one secret that it names."""
    return {
        "RAY_AUTH_TOKEN_PATH": str(home.path / "ray_token"),
        "RAYDIOLOGY_ENCRYPTION_KEY_PATH": str(home.path / "encryption_key"),
        "RAYDIOLOGY_PSEUDONYM_KEY_PATH": str(home.path / "pseudonym_key"),
    }


def load_or_generate(home: Home) -> Credentials:
    """The home's credentials; the first call makes them.

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
