"""The embedded platform as it runs: who may speak to it, what it keeps, and what it says when a part dies."""

import hashlib
import json
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import boto3
import httpx
import psycopg
import pytest
from botocore.exceptions import ClientError

from cluster.database import connect, migrate
from cluster.embedded.process import HOME_MARK, is_alive
from cluster.embedded.state import State
from cluster.embedded.status import beyond_loopback
from cluster.objects import ObjectStore
from cluster.settings import BUCKETS

LOG_AN_ARTIFACT = """
import mlflow
mlflow.set_experiment("platform-test")
with mlflow.start_run():
    mlflow.log_metric("loss", 0.5)
    mlflow.log_text("by way of the server", "note.txt")
    print(mlflow.get_artifact_uri("note.txt"))
"""


@pytest.fixture
def store(platform: Any) -> ObjectStore:
    return ObjectStore(platform.settings)


def token(platform: Any) -> dict[str, str]:
    return {"Authorization": f"Bearer {Path(platform.env['RAY_AUTH_TOKEN_PATH']).read_text().strip()}"}


def pids(platform: Any) -> dict[str, int]:
    return {name: one.pid for name, one in State.read(platform.home).components.items()}


def test_the_home_and_what_lies_in_it_are_for_their_owner(platform: Any) -> None:
    assert stat.S_IMODE(platform.home.path.stat().st_mode) == 0o700
    assert stat.S_IMODE(platform.home.socket_directory.stat().st_mode) == 0o700
    files = [path for path in platform.home.path.iterdir() if path.is_file()]
    assert {"env", "credentials.json", "encryption_key", "ray_token"} <= {path.name for path in files}
    assert [path.name for path in files if stat.S_IMODE(path.stat().st_mode) & 0o077] == []


def test_nothing_is_reachable_from_another_machine_but_what_asks_for_rays_token(platform: Any) -> None:
    assert [str(one) for one in beyond_loopback(platform.home) if not one.asks_for_token] == []


def test_a_port_that_is_open_to_other_machines_is_listed(platform: Any) -> None:
    code = "import socket; s = socket.create_server(('0.0.0.0', 0)); print(s.getsockname()[1], flush=True); input()"
    env = {**platform.env, HOME_MARK: platform.home.id}
    with subprocess.Popen(
        [sys.executable, "-c", code], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as stranger:
        assert stranger.stdout is not None
        port = int(stranger.stdout.readline())
        listed = {one.port: one.asks_for_token for one in beyond_loopback(platform.home)}
        stranger.kill()
    assert listed[port] is False


def test_s3_refuses_who_has_no_key_and_who_has_a_wrong_one(platform: Any) -> None:
    url = platform.settings.s3_endpoint
    assert httpx.get(f"{url}/raw?list-type=2", trust_env=False).status_code == 403
    assert httpx.put(f"{url}/raw/x", content=b"x", trust_env=False).status_code == 403
    stranger = boto3.client(
        "s3",
        endpoint_url=url,
        region_name="us-east-1",
        aws_access_key_id=platform.settings.s3_access_key,
        aws_secret_access_key="wrong",
    )
    with pytest.raises(ClientError) as refused:
        stranger.list_objects_v2(Bucket="raw")
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 403


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/api/jobs/"),
        ("POST", "/api/jobs/"),
        ("GET", "/api/serve/applications/"),
        ("GET", "/api/v0/actors"),
    ],
)
@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer wrong"}], ids=["no token", "wrong token"])
def test_ray_refuses_who_has_no_token(platform: Any, method: str, path: str, headers: dict[str, str]) -> None:
    body = {"entrypoint": "true"} if method == "POST" else None
    url = platform.settings.ray_api_server_address + path
    answer = httpx.request(method, url, headers=headers, json=body, timeout=30, trust_env=False)
    assert answer.status_code in (401, 403)


def test_postgresql_refuses_a_wrong_password(platform: Any) -> None:
    user, _, rest = platform.settings.database_url.partition("@")
    wrong = f"{user.rpartition(':')[0]}:wrong@{rest}"
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        connect(wrong)


def test_all_buckets_are_there(platform: Any, store: ObjectStore) -> None:
    for bucket in BUCKETS:
        store.put(bucket, "platform-test/one", b"1")
        assert store.keys(bucket, "platform-test/") == ["platform-test/one"]


def test_mlflow_hands_artifacts_to_the_bucket_for_a_client_without_s3_keys(
    platform: Any, store: ObjectStore
) -> None:
    env = {name: value for name, value in platform.env.items() if not name.startswith("AWS_")}
    logged = subprocess.run(
        [sys.executable, "-c", LOG_AN_ARTIFACT],
        env=env,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    where = next(line for line in logged.stdout.splitlines() if line.startswith("mlflow-artifacts:/"))
    assert store.get("mlflow-artifacts", where.removeprefix("mlflow-artifacts:/")) == b"by way of the server"


def test_mlflow_refuses_a_page_of_another_host(platform: Any) -> None:
    url = f"{platform.settings.mlflow_tracking_uri}/api/2.0/mlflow/experiments/search?max_results=1"
    assert httpx.get(url, trust_env=False).status_code == 200
    assert httpx.get(url, headers={"Host": "evil.example"}, trust_env=False).status_code == 403


def test_migrations_may_run_again(platform: Any) -> None:
    migrate(platform.settings.database_url)
    with connect(platform.settings.database_url) as connection:
        assert connection.execute("SELECT count(*) AS n FROM alembic_version").fetchone() == {"n": 1}


@pytest.mark.parametrize("change", ["UPDATE audit SET actor = 'x'", "DELETE FROM audit", "TRUNCATE audit"])
def test_what_the_audit_table_holds_cannot_be_changed(platform: Any, change: str) -> None:
    with connect(platform.settings.database_url) as connection:
        connection.execute("INSERT INTO audit (actor, action, subject) VALUES ('test', 'test', 'test')")
        with pytest.raises(psycopg.errors.RaiseException, match="append-only"):
            connection.execute(change)


def test_the_database_knows_each_roles_key_by_its_hash_only(platform: Any) -> None:
    keys = {
        role: platform.env[f"RAYDIOLOGY_{role.upper()}_KEY"] for role in ("client", "physician", "operator")
    }
    with connect(platform.settings.database_url) as connection:
        rows = connection.execute(
            "SELECT key_sha256, role FROM api_keys WHERE key_id LIKE 'embedded-%'"
        ).fetchall()
    assert {row["role"]: row["key_sha256"] for row in rows} == {
        role: hashlib.sha256(key.encode()).hexdigest() for role, key in keys.items()
    }


def test_a_job_runs_our_python_and_inherits_the_secrets_that_were_not_submitted(platform: Any) -> None:
    code = "import os, sys; print('[' + sys.executable, os.environ['RAYDIOLOGY_DATABASE_URL'] + ']')"
    api = f"{platform.settings.ray_api_server_address}/api/jobs/"
    with httpx.Client(headers=token(platform), timeout=60, trust_env=False) as ray:
        job = ray.post(api, json={"entrypoint": f'python -c "{code}"'}).json()["submission_id"]
        until = time.monotonic() + 90
        while (details := ray.get(api + job).json())["status"] not in ("SUCCEEDED", "FAILED"):
            assert time.monotonic() < until
            time.sleep(0.3)
        logs = ray.get(f"{api}{job}/logs").json()["logs"]
    assert details["status"] == "SUCCEEDED", logs
    assert f"[{sys.executable} {platform.settings.database_url}]" in logs
    assert platform.settings.database_url not in json.dumps(details)


def test_a_second_up_changes_nothing_and_a_simultaneous_one_is_refused(platform: Any) -> None:
    before = pids(platform)
    again = platform.command("up")
    assert again.returncode == 0, again.stderr
    assert again.stdout.count("already up") == 4
    assert pids(platform) == before
    with platform.home.locked():
        refused = platform.command("up")
    assert refused.returncode == 1
    assert f"at work (process {os.getpid()})" in refused.stderr


def test_a_port_cannot_move_while_the_platform_runs(platform: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    refused = subprocess.run(
        [sys.executable, "-m", "cluster.embedded.platform", "up"],
        env={**platform.env, "RAYDIOLOGY_S3_PORT": "9999"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert refused.returncode == 1
    assert "RAYDIOLOGY_S3_PORT asks for port 9999" in refused.stderr


def test_an_s3_server_that_is_killed_is_reported_and_comes_back_with_every_object(
    platform: Any, store: ObjectStore
) -> None:
    objects = {f"killed/{size}": os.urandom(size) for size in (0, 1, 5_000, 70_000, 9_000_000)}
    for key, blob in objects.items():
        store.put("raw", key, blob)
    before = pids(platform)
    os.kill(before["s3"], signal.SIGKILL)

    status = platform.command("status")
    assert status.returncode == 1
    died = next(line for line in status.stdout.splitlines() if "S3" in line)
    assert "died" in died
    assert status.stdout.count("      | ") >= 5

    assert platform.command("up").returncode == 0
    after = pids(platform)
    assert after.pop("s3") != before.pop("s3")
    assert after == before
    assert {key: store.get("raw", key) for key in store.keys("raw", "killed/")} == objects
    assert platform.command("status").returncode == 0


def test_down_leaves_nothing_up_survives_stale_files_and_what_was_stored_is_there(
    platform: Any, store: ObjectStore
) -> None:
    store.put("raw", "survives", b"down and up")
    with connect(platform.settings.database_url) as connection:
        connection.execute("INSERT INTO audit (actor, action, subject) VALUES ('test', 'survives', 'down')")
    known = State.read(platform.home)
    os.kill(known.components["ray"].pid, signal.SIGKILL)  # its raylet, agents and dashboard are orphans now

    stopped = platform.command("down")
    assert stopped.returncode == 0, stopped.stderr
    assert "No process and no port of the platform is left" in stopped.stdout
    assert not any(is_alive(one) for one in known.components.values())
    assert known.ports is not None
    parts = ("filer", "master", "s3", "volume")
    assert not any(
        Path(f"/tmp/seaweedfs-{one}-grpc-{known.ports[one + '_grpc']}.sock").exists() for one in parts
    )
    assert platform.command("status").returncode == 1

    bystander = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"])
    try:
        stale = json.loads(platform.home.state_file.read_text())
        identity = {"pid": bystander.pid, "started_ticks": 1, "boot": known.components["s3"].boot}
        stale["components"] = dict.fromkeys(("s3", "postgresql", "ray", "mlflow"), identity)
        platform.home.write_state(stale)
        (platform.home.path / "postgresql" / "postmaster.pid").write_text(f"{bystander.pid}\n")

        started = platform.command("up")
        assert started.returncode == 0, started.stderr
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()
    ports = State.read(platform.home).ports
    assert ports is not None  # another platform may have taken the slot of internal ones meanwhile
    assert ports.named == known.ports.named
    assert store.get("raw", "survives") == b"down and up"
    with connect(platform.settings.database_url) as connection:
        rows = connection.execute("SELECT subject FROM audit WHERE action = 'survives'").fetchall()
    assert rows == [{"subject": "down"}]
