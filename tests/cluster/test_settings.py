from pathlib import Path

import pytest

from cluster.settings import Settings, SettingsError

ENV = {
    "AWS_ENDPOINT_URL": "https://s3.example.org",
    "AWS_ACCESS_KEY_ID": "access",
    "AWS_SECRET_ACCESS_KEY": "very-secret",
    "RAYDIOLOGY_DATABASE_URL": "postgresql://raydiology:very-secret@db.example.org/raydiology",
    "MLFLOW_TRACKING_URI": "https://mlflow.example.org",
    "RAY_ADDRESS": "10.0.0.1:6379",
    "RAY_API_SERVER_ADDRESS": "https://ray.example.org",
    "RAYDIOLOGY_API_URL": "https://api.example.org/",
    "RAYDIOLOGY_ENCRYPTION_KEY_PATH": "/etc/raydiology/encryption_key",
    "RAYDIOLOGY_PSEUDONYM_KEY_PATH": "/etc/raydiology/pseudonym_key",
}


def test_a_remote_cluster_is_a_matter_of_the_environment() -> None:
    settings = Settings.from_env({**ENV, "RAYDIOLOGY_BUCKET_PREFIX": "hospital-a-"})
    assert settings.bucket("raw") == "hospital-a-raw"
    assert settings.api_url == "https://api.example.org"
    assert settings.encryption_key_path == Path("/etc/raydiology/encryption_key")
    assert settings.environment == "development"
    assert "very-secret" not in repr(settings)


def test_all_missing_variables_are_named_at_once() -> None:
    env = {name: value for name, value in ENV.items() if name not in ("RAY_ADDRESS", "AWS_ENDPOINT_URL")}
    with pytest.raises(SettingsError, match=r"AWS_ENDPOINT_URL, RAY_ADDRESS\. Run `make up`"):
        Settings.from_env(env)


def test_an_http_address_for_ray_is_refused() -> None:
    with pytest.raises(SettingsError, match="RAY_API_SERVER_ADDRESS takes the http one"):
        Settings.from_env({**ENV, "RAY_ADDRESS": "http://10.0.0.1:8265"})


def test_an_unknown_environment_is_refused_with_the_known_ones() -> None:
    with pytest.raises(SettingsError, match="development, staging, canary, production"):
        Settings.from_env({**ENV, "RAYDIOLOGY_ENVIRONMENT": "prod"})
