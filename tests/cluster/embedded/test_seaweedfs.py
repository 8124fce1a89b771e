"""SeaweedFS's command and the keys it is given."""

import json

from cluster.embedded.seaweedfs import SeaweedFs
from cluster.embedded.site import Site


def test_it_binds_loopback_and_makes_no_bucket_by_itself(site: Site) -> None:
    command = SeaweedFs().command(site)
    assert {"-ip.bind=127.0.0.1", "-s3.autoCreateBucket=false", "-s3.port=9000"} <= set(command)


def test_only_the_keys_of_the_site_are_known(site: Site) -> None:
    SeaweedFs().prepare(site)
    file = site.home.path / "s3_identities.json"
    (identity,) = json.loads(file.read_text())["identities"]
    assert identity["credentials"] == [
        {"accessKey": site.credentials.s3_access_key, "secretKey": site.credentials.s3_secret_key}
    ]
    assert file.stat().st_mode & 0o077 == 0
