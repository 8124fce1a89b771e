"""The MLflow server: records in PostgreSQL's `mlflowdb`, artifacts in the bucket `mlflow-artifacts`.

It proxies artifacts, so a client of MLflow needs no S3 keys. It has no log-in of its own:
it listens on loopback and answers only to requests that name loopback as their host.
"""

import sys
from collections.abc import Mapping
from pathlib import Path

from cluster.embedded.component import Component, http_status, scripts_directory
from cluster.embedded.site import LOOPBACK, Site
from cluster.settings import Settings


class MlflowServer(Component):
    name, title, main_port = "mlflow", "MLflow", "mlflow"
    ports = ("mlflow",)
    needs = ("postgresql",)
    stop_timeout_s = 5.0

    def program(self) -> Path:
        return scripts_directory() / "mlflow"

    def command(self, site: Site) -> list[str]:
        port = site.ports["mlflow"]
        bucket = Settings.from_env(site.env()).bucket("mlflow-artifacts")
        hosts = ",".join(f"{host}:{port}" for host in (LOOPBACK, "localhost"))
        return [
            *(sys.executable, "-m", "mlflow", "server"),
            *("--host", LOOPBACK, "--port", str(port), "--workers", "1"),
            *("--serve-artifacts", "--artifacts-destination", f"s3://{bucket}"),
            *("--allowed-hosts", hosts, "--cors-allowed-origins", f"http://{LOOPBACK}:{port}"),
        ]

    def own_env(self, site: Site) -> Mapping[str, str]:
        url = site.database_url("mlflow", "mlflowdb", site.credentials.mlflow_password)
        return {
            "MLFLOW_BACKEND_STORE_URI": url.replace("postgresql://", "postgresql+psycopg://"),
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "OMP_NUM_THREADS": "1",
        }

    def is_healthy(self, site: Site) -> bool:
        return http_status(f"{site.url('mlflow')}/health") == 200
