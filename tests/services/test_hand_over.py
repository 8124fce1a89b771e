"""A version goes from one platform to another: other buckets, and a registry of its own."""

import secrets
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cluster.objects import ObjectStore
from cluster.releases import bundles
from cluster.releases.bundles import BUCKET, COMMIT, BundleError
from cluster.releases.hand_over import copy_version, settings_of
from cluster.releases.registry import VIT, Registry
from cluster.releases.signatures import generate
from cluster.settings import Settings, SettingsError


@pytest.fixture
def version(platform: Any) -> str:
    store, registry = ObjectStore(platform.settings), Registry(platform.settings)
    key, edge = (
        bundles.publish(store, {"card.json": f'{{"one": "{secrets.token_hex(8)}"}}'.encode()})
        for _ in range(2)
    )
    number = registry.register(
        VIT, key, None, {"verdict": "pass", "load_test": "pass", "load_test_rate": "50"}
    )
    registry.set_variant(VIT, number, "edge", edge)
    return number


@pytest.fixture
def target(platform: Any, tmp_path: Path) -> Settings:
    found: Settings = replace(
        platform.settings,
        bucket_prefix=f"there-{secrets.token_hex(3)}-",
        mlflow_tracking_uri=f"sqlite:///{tmp_path}/mlflow.db",
        environment="production",
    )
    ObjectStore(found).ensure_buckets((BUCKET,))
    return found


# MLflow's own, of a registry in a file; the platform's is behind a server.
@pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy")
def test_a_version_arrives_whole_with_its_verdicts_and_again_is_the_same(
    platform: Any, target: Settings, version: str
) -> None:
    number = copy_version(platform.settings, target, version)
    here, there = Registry(platform.settings), Registry(target)
    tags = there.tags(VIT, number)
    assert (tags["verdict"], tags["load_test"], tags["load_test_rate"]) == ("pass", "pass", "50")
    assert tags["handed_over_from"] == f"development {version}"
    assert there.bundle_keys(VIT, number) == here.bundle_keys(VIT, version)
    for key in there.bundle_keys(VIT, number):
        bundles.verify(ObjectStore(target), key)
    assert there.version_by_alias(VIT, "champion") is None
    here.set_tags(VIT, version, {"load_test": "fail"})
    assert copy_version(platform.settings, target, version) == number
    assert there.tags(VIT, number)["load_test"] == "fail"


def test_who_does_not_trust_the_signature_gets_nothing(
    platform: Any, target: Settings, version: str, tmp_path: Path
) -> None:
    other = tmp_path / "other.pem"
    other.write_text(generate()[1])
    with pytest.raises(BundleError, match="is refused"):
        copy_version(platform.settings, replace(target, verifying_key_path=other), version)
    key = Registry(platform.settings).bundle_key(VIT, version)
    assert not ObjectStore(target).exists(BUCKET, f"{key}/{COMMIT}")


def test_an_environment_that_lacks_a_name_is_told(tmp_path: Path) -> None:
    path = tmp_path / "env"
    path.write_text("RAYDIOLOGY_ENVIRONMENT=production\n")
    with pytest.raises(SettingsError, match="not set: AWS_ENDPOINT_URL"):
        settings_of(path)
