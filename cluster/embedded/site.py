"""One embedded platform on one machine: its home, ports and secrets, and the environment that jobs read.

`Site.env()` is what goes to `.raydiology/env`; `Settings.from_env` reads the same names, from there or from a
remote cluster's environment.
"""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cluster.embedded.credentials import Credentials, key_files, signing_files
from cluster.embedded.home import Home, PlatformError, write_private
from cluster.embedded.ports import Ports
from cluster.embedded.process import COMPONENT_MARK, HOME_MARK

LOOPBACK = "127.0.0.1"
FOREIGN = ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE", "PYTHONPATH")
FOREIGN_PREFIXES = ("PG", "MLFLOW_", "RAY_", "WEED_")
"""Variables of the caller that would send our components elsewhere."""


@dataclass(frozen=True, kw_only=True)
class Site:
    home: Home
    ports: Ports
    credentials: Credentials
    environment: str = "development"
    bucket_prefix: str = ""

    def url(self, port: str) -> str:
        return f"http://{LOOPBACK}:{self.ports[port]}"

    def database_url(self, role: str, database: str, password: str) -> str:
        return f"postgresql://{role}:{password}@{LOOPBACK}:{self.ports['postgresql']}/{database}"

    def env(self) -> dict[str, str]:
        """Return what jobs and replicas read: addresses, secrets, and the switches that Ray reads in every process."""
        api_keys = {f"RAYDIOLOGY_{role.upper()}_KEY": key for role, key in self.credentials.api_keys.items()}
        return {
            "AWS_ACCESS_KEY_ID": self.credentials.s3_access_key,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_ENDPOINT_URL": self.url("s3"),
            "AWS_SECRET_ACCESS_KEY": self.credentials.s3_secret_key,
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "MLFLOW_TRACKING_URI": self.url("mlflow"),
            "NO_PROXY": f"{LOOPBACK},localhost",
            "RAYDIOLOGY_API_URL": self.url("serve"),
            "RAYDIOLOGY_BUCKET_PREFIX": self.bucket_prefix,
            "RAYDIOLOGY_DATABASE_URL": self.database_url(
                "raydiology", "raydiology", self.credentials.postgres_password
            ),
            "RAYDIOLOGY_ENVIRONMENT": self.environment,
            "RAYDIOLOGY_HOME": str(self.home.path),
            "RAYDIOLOGY_JOURNAL": str(self.home.path / "journal"),
            "RAY_ADDRESS": f"{LOOPBACK}:{self.ports['ray_gcs']}",
            "RAY_API_SERVER_ADDRESS": self.url("dashboard"),
            "RAY_AUTH_MODE": "token",
            "RAY_DATA_USE_DATASOURCE_V2": "0",
            # Ray's switch for laptops: off, a node's address is 127.0.0.1, and all that Ray opens stays on loopback.
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
            "RAY_SERVE_ENABLE_HA_PROXY": "1",
            # Replicas then count requests themselves, by the same names, without a line of log for each.
            "RAY_SERVE_HAPROXY_METRICS_ENABLED": "0",
            "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
            "RAY_TRAIN_ENABLE_STATE_TRACKING": "1",
            "RAY_USAGE_STATS_ENABLED": "0",
            "no_proxy": f"{LOOPBACK},localhost",
            **key_files(self.home),
            **signing_files(self.home),
            **api_keys,
        }

    def component_env(self, component: str, own: Mapping[str, str]) -> dict[str, str]:
        """Return the environment of one component's processes: the caller's, the jobs', the component's own, marks."""
        inherited = {
            name: value
            for name, value in os.environ.items()
            if name not in FOREIGN and not name.startswith(FOREIGN_PREFIXES)
        }
        path = f"{Path(sys.executable).parent}{os.pathsep}{inherited.get('PATH', os.defpath)}"
        marks = {HOME_MARK: self.home.id, COMPONENT_MARK: component}
        # Processes that set a title would write it over their environment, and so over our marks; this forbids it.
        ours = {"PATH": path, "PYTHONUNBUFFERED": "1", "SPT_NOENV": "1"}
        return {**inherited, **self.env(), **ours, **own, **marks}

    def write_env(self) -> None:
        write_private(
            self.home.env_file, "".join(f"{name}={value}\n" for name, value in sorted(self.env().items()))
        )


def read_env(home: Home) -> dict[str, str]:
    """Read the environment that the last `up` wrote.

    Raises:
        PlatformError: there is none.
    """
    try:
        lines = home.env_file.read_text().splitlines()
    except FileNotFoundError as error:
        raise PlatformError(f"{home.env_file} does not exist: run `make up` first") from error
    return dict(line.split("=", 1) for line in lines if "=" in line)
