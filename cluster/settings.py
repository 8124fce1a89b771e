"""Addresses, secrets and buckets, read once from the environment.

Entry points call `Settings.from_env()` and pass the result on; no other module reads the environment,
so nothing in data/, train/ or serve/ can tell the embedded platform from a remote cluster.
"""

import os
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any

PROJECT_ROOT = Path(__file__).resolve().parents[1]
"""The folder that holds the rooms: a checkout, Ray's copy of one in its session folder, or an unpacked `code.zip`."""
BUCKETS = ("raw", "datasets", "checkpoints", "mlflow-artifacts", "predictions", "quarantine")
ENVIRONMENTS = ("development", "staging", "canary", "production")
VARIABLES = {
    "s3_endpoint": "AWS_ENDPOINT_URL",
    "s3_access_key": "AWS_ACCESS_KEY_ID",
    "s3_secret_key": "AWS_SECRET_ACCESS_KEY",
    "bucket_prefix": "RAYDIOLOGY_BUCKET_PREFIX",
    "database_url": "RAYDIOLOGY_DATABASE_URL",
    "mlflow_tracking_uri": "MLFLOW_TRACKING_URI",
    "ray_address": "RAY_ADDRESS",
    "ray_api_server_address": "RAY_API_SERVER_ADDRESS",
    "ray_auth_token_path": "RAY_AUTH_TOKEN_PATH",
    "api_url": "RAYDIOLOGY_API_URL",
    "environment": "RAYDIOLOGY_ENVIRONMENT",
    "encryption_key_path": "RAYDIOLOGY_ENCRYPTION_KEY_PATH",
    "pseudonym_key_path": "RAYDIOLOGY_PSEUDONYM_KEY_PATH",
    "signing_key_path": "RAYDIOLOGY_SIGNING_KEY_PATH",
    "verifying_key_path": "RAYDIOLOGY_VERIFYING_KEY_PATH",
    "client_key": "RAYDIOLOGY_CLIENT_KEY",
    "alert_webhook": "RAYDIOLOGY_ALERT_WEBHOOK",
    "environments_file": "RAYDIOLOGY_ENVIRONMENTS",
    "journal": "RAYDIOLOGY_JOURNAL",
}
"""Field of `Settings` → the variable that it is read from; one without a default is required."""


class SettingsError(ValueError):
    """The environment is incomplete or contradictory; the message names the variable and what to do."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    s3_endpoint: str
    """Base URL of the S3 server, e.g. http://127.0.0.1:9000."""
    s3_access_key: str
    s3_secret_key: str = field(repr=False)
    bucket_prefix: str = ""
    """Put before each bucket's name, e.g. "hospital-a-"."""
    database_url: str = field(repr=False)
    """Postgresql://USER:PASSWORD@HOST:PORT/raydiology."""
    mlflow_tracking_uri: str
    """Http(s) address of the MLflow server."""
    ray_address: str
    """The GCS address HOST:PORT that drivers join; never an http address."""
    ray_api_server_address: str
    """Http(s) address of the dashboard: job submission and Serve's REST API."""
    ray_auth_token_path: Path | None = None
    """File with the token that Ray's API asks for; None when `RAY_AUTH_MODE=disabled`."""
    api_url: str
    """Where Ray Serve answers, e.g. http://127.0.0.1:8000."""
    environment: str = "development"
    """One of `ENVIRONMENTS`; `serve.control.environments` says what each means."""
    encryption_key_path: Path
    """File with 32 random bytes in hex; seals originals at rest."""
    pseudonym_key_path: Path
    """File with 32 random bytes in hex; keys pseudonyms, splits and ids."""
    signing_key_path: Path | None = None
    """File with the private key, PEM, that release bundles are signed with; only
    training, export and signing need it."""
    verifying_key_path: Path | None = None
    """File with its public half; without it every bundle is refused."""
    client_key: str | None = field(default=None, repr=False)
    """An API key of role client, for jobs that ask over HTTP (embedded platform)."""
    alert_webhook: str | None = field(default=None, repr=False)
    """Http(s) address that alerts are posted to; it may hold a secret. None: alerts are logged only."""

    environments_file: Path | None = None
    """A file in place of `serve/control/environments.yaml`, on every node. None: that one."""
    journal: Path | None = None
    """Folder on a local disk of each node where a front door keeps what it has answered while the
    database or the object store is away. None: it refuses predictions then."""

    def __post_init__(self) -> None:
        if self.environment not in ENVIRONMENTS:
            raise SettingsError(
                f"RAYDIOLOGY_ENVIRONMENT is {self.environment!r}; set it to one of {', '.join(ENVIRONMENTS)}"
            )
        if self.ray_address.startswith("http"):
            raise SettingsError(
                f"RAY_ADDRESS is {self.ray_address!r}, an http address; it takes the GCS address HOST:PORT, "
                "and RAY_API_SERVER_ADDRESS takes the http one"
            )
        if self.alert_webhook is not None and not self.alert_webhook.startswith(("http://", "https://")):
            raise SettingsError("RAYDIOLOGY_ALERT_WEBHOOK is no http address: set it to one, or unset it")

    @classmethod
    def from_env(cls, env: Mapping[str, str] | None = None) -> "Settings":
        """Read the settings.

        Raises:
            SettingsError: a variable is missing (all missing ones are named) or has an impossible value.
        """
        env = os.environ if env is None else env
        missing = [
            VARIABLES[item.name]
            for item in fields(cls)
            if item.default is MISSING and not env.get(VARIABLES[item.name])
        ]
        if missing:
            raise SettingsError(
                f"not set: {', '.join(missing)}. Run `make up`, then `set -a; . .raydiology/env; set +a`, "
                "or set them to your cluster's addresses"
            )
        values: dict[str, Any] = {}
        for item in fields(cls):
            if text := env.get(VARIABLES[item.name]):
                values[item.name] = Path(text) if item.type in (Path, Path | None) else text
        return cls(**{**values, "api_url": values["api_url"].rstrip("/")})

    def bucket(self, name: str) -> str:
        """Return the real name of one of `BUCKETS`, with the configured prefix."""
        assert name in BUCKETS, name
        return f"{self.bucket_prefix}{name}"


@dataclass(frozen=True, kw_only=True)
class Kaggle:
    """Credentials for Kaggle: a token, or a name and a key. Apart from `Settings`, which travel to workers."""

    username: str = ""
    """`KAGGLE_USERNAME`."""
    key: str = field(default="", repr=False)
    """`KAGGLE_KEY`."""
    token: str = field(default="", repr=False)
    """`KAGGLE_API_TOKEN`; counts before name and key."""

    @classmethod
    def from_env(cls, env: Mapping[str, str] | None = None) -> "Kaggle | None":
        """Read the credentials; None where there are none.

        Raises:
            SettingsError: one of name and key is there, and the other is not.
        """
        values = os.environ if env is None else env
        username, key, token = (
            values.get(name, "").strip() for name in ("KAGGLE_USERNAME", "KAGGLE_KEY", "KAGGLE_API_TOKEN")
        )
        if not token and bool(username) != bool(key):
            missing = "KAGGLE_KEY" if username else "KAGGLE_USERNAME"
            raise SettingsError(f"not set: {missing}. Kaggle asks for both KAGGLE_USERNAME and KAGGLE_KEY")
        return cls(username=username, key=key, token=token) if token or key else None
