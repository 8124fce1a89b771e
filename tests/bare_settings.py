"""Settings of a platform that is not there, for code that only carries them."""

from pathlib import Path
from typing import Any

from cluster.settings import Settings


def bare_settings(**given: Any) -> Settings:
    """What has no default, and what is given."""
    needed: dict[str, Any] = {
        "s3_endpoint": "http://s3",
        "s3_access_key": "a",
        "s3_secret_key": "s",
        "database_url": "postgresql://x",
        "mlflow_tracking_uri": "http://mlflow",
        "ray_address": "127.0.0.1:1",
        "ray_api_server_address": "http://ray",
        "api_url": "http://api",
        "encryption_key_path": Path("/dev/null"),
        "pseudonym_key_path": Path("/dev/null"),
    }
    return Settings(**needed | given)
