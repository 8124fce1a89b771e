"""Where am I? Addresses, secrets and buckets, read once from the environment.

Entry points call `Settings.from_env()` and pass the result on; no other module reads the environment,
so nothing in data/, train/ or serve/ can tell the embedded platform from a remote cluster.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

BUCKETS = ("raw", "datasets", "checkpoints", "mlflow-artifacts", "predictions", "quarantine")
ENVIRONMENTS = ("development", "staging", "canary", "production")


class SettingsError(ValueError):
    """The environment is incomplete or contradictory; the message names the variable and what to do."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    s3_endpoint: str
    """`AWS_ENDPOINT_URL`: base URL of the S3 server, e.g. http://127.0.0.1:9000."""
    s3_access_key: str
    """`AWS_ACCESS_KEY_ID`."""
    s3_secret_key: str = field(repr=False)
    """`AWS_SECRET_ACCESS_KEY`."""
    bucket_prefix: str = ""
    """`RAYDIOLOGY_BUCKET_PREFIX`: put before each bucket's name, e.g. "hospital-a-"."""
    database_url: str = field(repr=False)
    """`RAYDIOLOGY_DATABASE_URL`: postgresql://USER:PASSWORD@HOST:PORT/raydiology."""
    mlflow_tracking_uri: str
    """`MLFLOW_TRACKING_URI`: http(s) address of the MLflow server."""
    ray_address: str
    """`RAY_ADDRESS`: the GCS address HOST:PORT that drivers join; never an http address."""
    ray_api_server_address: str
    """`RAY_API_SERVER_ADDRESS`: http(s) address of the dashboard: job submission and Serve's REST API."""
    ray_auth_token_path: Path | None = None
    """`RAY_AUTH_TOKEN_PATH`: file with the token that Ray's API asks for; None when `RAY_AUTH_MODE=disabled`."""
    api_url: str
    """`RAYDIOLOGY_API_URL`: where Ray Serve answers, e.g. http://127.0.0.1:8000."""
    environment: str = "development"
    """`RAYDIOLOGY_ENVIRONMENT`: one of `ENVIRONMENTS`; `serve.environments` says what each means."""
    encryption_key_path: Path
    """`RAYDIOLOGY_ENCRYPTION_KEY_PATH`: file with 32 random bytes in hex; seals originals at rest."""
    pseudonym_key_path: Path
    """`RAYDIOLOGY_PSEUDONYM_KEY_PATH`: file with 32 random bytes in hex; keys pseudonyms, splits and ids."""
    signing_key_path: Path | None = None
    """`RAYDIOLOGY_SIGNING_KEY_PATH`: file with the private key, PEM, that release bundles are signed with; only who
    trains, exports or re-signs needs it."""
    verifying_key_path: Path | None = None
    """`RAYDIOLOGY_VERIFYING_KEY_PATH`: file with its public half; whoever loads a bundle refuses it without."""
    client_key: str | None = field(default=None, repr=False)
    """`RAYDIOLOGY_CLIENT_KEY`: an API key of role client, for jobs that ask over HTTP (embedded platform)."""
    alert_webhook: str | None = field(default=None, repr=False)
    """`RAYDIOLOGY_ALERT_WEBHOOK`: http(s) address that alerts are posted to; it may hold a secret. None: nobody."""

    environments_file: Path | None = None
    """`RAYDIOLOGY_ENVIRONMENTS`: a file in place of `serve/environments.yaml`, on every node. None: that one."""
    journal: Path | None = None
    """`RAYDIOLOGY_JOURNAL`: folder on a local disk of each node where a front door keeps what it has answered while the
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
        values = os.environ if env is None else env
        required = {
            "s3_endpoint": "AWS_ENDPOINT_URL",
            "s3_access_key": "AWS_ACCESS_KEY_ID",
            "s3_secret_key": "AWS_SECRET_ACCESS_KEY",
            "database_url": "RAYDIOLOGY_DATABASE_URL",
            "mlflow_tracking_uri": "MLFLOW_TRACKING_URI",
            "ray_address": "RAY_ADDRESS",
            "ray_api_server_address": "RAY_API_SERVER_ADDRESS",
            "api_url": "RAYDIOLOGY_API_URL",
            "encryption_key_path": "RAYDIOLOGY_ENCRYPTION_KEY_PATH",
            "pseudonym_key_path": "RAYDIOLOGY_PSEUDONYM_KEY_PATH",
        }
        missing = [name for name in required.values() if not values.get(name)]
        if missing:
            raise SettingsError(
                f"not set: {', '.join(missing)}. Run `make up`, then `set -a; . .raydiology/env; set +a`, "
                "or set them to your cluster's addresses"
            )

        def path(name: str) -> Path | None:
            return Path(values[name]) if values.get(name) else None

        return cls(
            s3_endpoint=values["AWS_ENDPOINT_URL"],
            s3_access_key=values["AWS_ACCESS_KEY_ID"],
            s3_secret_key=values["AWS_SECRET_ACCESS_KEY"],
            bucket_prefix=values.get("RAYDIOLOGY_BUCKET_PREFIX", ""),
            database_url=values["RAYDIOLOGY_DATABASE_URL"],
            mlflow_tracking_uri=values["MLFLOW_TRACKING_URI"],
            ray_address=values["RAY_ADDRESS"],
            ray_api_server_address=values["RAY_API_SERVER_ADDRESS"],
            ray_auth_token_path=path("RAY_AUTH_TOKEN_PATH"),
            api_url=values["RAYDIOLOGY_API_URL"].rstrip("/"),
            environment=values.get("RAYDIOLOGY_ENVIRONMENT") or "development",
            encryption_key_path=Path(values["RAYDIOLOGY_ENCRYPTION_KEY_PATH"]),
            pseudonym_key_path=Path(values["RAYDIOLOGY_PSEUDONYM_KEY_PATH"]),
            signing_key_path=path("RAYDIOLOGY_SIGNING_KEY_PATH"),
            verifying_key_path=path("RAYDIOLOGY_VERIFYING_KEY_PATH"),
            client_key=values.get("RAYDIOLOGY_CLIENT_KEY"),
            alert_webhook=values.get("RAYDIOLOGY_ALERT_WEBHOOK") or None,
            environments_file=path("RAYDIOLOGY_ENVIRONMENTS"),
            journal=path("RAYDIOLOGY_JOURNAL"),
        )

    def bucket(self, name: str) -> str:
        """The real name of one of `BUCKETS`, with the configured prefix."""
        assert name in BUCKETS, name
        return f"{self.bucket_prefix}{name}"


@dataclass(frozen=True, kw_only=True)
class Kaggle:
    """Who fetches from Kaggle: a token, or a name and a key. Apart from `Settings`, which travel to workers."""

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
