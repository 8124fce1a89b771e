"""The MLflow server's command and environment."""

import itertools

from cluster.embedded.mlflow_server import MlflowServer
from cluster.embedded.site import Site


def test_it_answers_on_loopback_to_requests_that_name_loopback(site: Site) -> None:
    command = MlflowServer().command(site)
    options = dict(itertools.pairwise(command))
    assert options["--host"] == "127.0.0.1"
    assert options["--allowed-hosts"] == "127.0.0.1:5000,localhost:5000"
    assert options["--artifacts-destination"] == "s3://mlflow-artifacts"


def test_the_password_of_the_database_is_in_the_environment_alone(site: Site) -> None:
    server = MlflowServer()
    password = site.credentials.mlflow_password
    assert password in server.own_env(site)["MLFLOW_BACKEND_STORE_URI"]
    assert password not in " ".join(server.command(site))
