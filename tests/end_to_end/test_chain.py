"""The whole chain on the embedded platform: from drawn X-rays to an explained answer, and what must not pass.

The smoke recipe trains one epoch on few images, so the gate has to halt it. To go on behind the gate, the
test vouches for that version itself, as nobody else can: it writes the verdict that evaluation refused.
"""

import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
import psutil
import pytest
from PIL import Image

from cluster.database import connect
from cluster.embedded.process import marked
from cluster.embedded.status import beyond_loopback
from cluster.objects import ObjectStore
from cluster.releases import bundles
from cluster.releases.registry import VIT, Registry
from cluster.settings import Settings
from data.imaging.preprocess import to_pixels
from data.model_card import ModelCard
from jobs.load_test.job import Arguments as LoadTest
from jobs.load_test.job import run_load_test
from jobs.runtime import working_tree
from jobs.runtime.entry import Halted
from serve.classifier.classifier import Classifier
from train.evaluation.gates import Gates
from train.vit.inference import logits, rebuild

ROOT = Path(__file__).resolve().parents[2]


def job(platform: Any, name: str, *arguments: str) -> tuple[int, dict[str, Any], str]:
    """Run a job as a user would: exit code, last line, everything printed."""
    done = subprocess.run(
        [sys.executable, "-m", f"jobs.{name}", *arguments],
        cwd=ROOT,
        env=platform.env,
        capture_output=True,
        text=True,
        timeout=540,
        check=False,
    )
    lines = done.stdout.strip().splitlines()
    assert lines, done.stderr
    return done.returncode, json.loads(lines[-1]), done.stdout + done.stderr


@pytest.fixture(scope="module")
def halted(platform: Any) -> tuple[int, dict[str, Any], str]:
    return job(platform, "pipeline", "--recipe", "smoke")


@dataclass(frozen=True)
class Api:
    """The served platform, over HTTP."""

    settings: Settings
    env: dict[str, str]

    def call(self, method: str, url: str, role: str | None = "client", **request: Any) -> httpx.Response:
        headers = dict(request.pop("headers", {}))
        if role is not None:
            headers["Authorization"] = f"Bearer {self.env[f'RAYDIOLOGY_{role.upper()}_KEY']}"
        with httpx.Client(base_url=self.settings.api_url, timeout=120) as api:
            return api.request(method, url, headers=headers, **request)

    def post(self, blob: bytes, role: str | None = "client", **request: Any) -> httpx.Response:
        return self.call("POST", "/v1/predictions", role, files={"file": ("x", blob)}, **request)


@pytest.fixture(scope="module")
def api(platform: Any, halted: tuple[int, dict[str, Any], str]) -> Api:
    version = halted[1]["train"]["model_version"]
    Registry(platform.settings).set_tags(VIT, version, {"verdict": "pass"})
    code, line, printed = job(platform, "deploy", "--version", version)
    assert code == 0, printed
    assert line["status"] == "ok"
    return Api(platform.settings, platform.env)


def png(side: int = 96) -> bytes:
    buffer = io.BytesIO()
    pixels_HW = np.random.default_rng(1).integers(0, 255, (side, side)).astype(np.uint8)
    Image.fromarray(pixels_HW).save(buffer, "PNG")
    return buffer.getvalue()


def test_a_model_trained_for_one_epoch_is_halted_with_exit_3_and_gets_no_alias(
    platform: Any, halted: tuple[int, dict[str, Any], str]
) -> None:
    code, line, printed = halted
    assert code == 3, printed
    assert line["status"] == "halted"
    assert line["evaluate"]["verdict"] == "fail"
    assert line["evaluate"]["gates"]["recall_normal"] == "not evaluable"
    assert "deploy" not in line
    registry = Registry(platform.settings)
    assert [registry.version_by_alias(VIT, alias) for alias in ("champion", "challenger")] == [None, None]
    assert "Gates: fail" in printed


def test_what_was_not_committed_where_the_job_was_submitted_is_in_mlflow(
    platform: Any, halted: tuple[int, dict[str, Any], str], tmp_path: Path
) -> None:
    client, run_id = Registry(platform.settings).client, halted[1]["train"]["mlflow_run_id"]
    differs = bool(working_tree.changes(ROOT, platform.env))
    assert client.get_run(run_id).data.tags["raydiology.uncommitted"] == ("changed" if differs else "clean")
    told = Path(client.download_artifacts(run_id, "code/uncommitted.diff", str(tmp_path))).read_text()
    assert told.startswith("# Clean") is not differs


def test_a_version_that_did_not_pass_cannot_be_deployed(
    platform: Any, halted: tuple[int, dict[str, Any], str]
) -> None:
    registry = Registry(platform.settings)
    version = halted[1]["train"]["model_version"]
    assert registry.tags(VIT, version)["verdict"] == "fail"
    code, line, _ = job(platform, "deploy", "--version", version)
    assert code == 1
    assert "has not passed its gates" in line["error"]


def test_a_second_run_repeats_nothing_that_is_done(
    platform: Any, halted: tuple[int, dict[str, Any], str]
) -> None:
    code, line, printed = job(platform, "pipeline", "--recipe", "smoke")
    assert code == 3, printed
    assert line["ingest"]["ingested"] == 0
    assert line["etl"]["reused"] is True
    assert line["train"]["resumed"] is True
    assert line["train"]["model_version"] == halted[1]["train"]["model_version"]
    assert line["train"]["weights_sha256"] == halted[1]["train"]["weights_sha256"]


def test_a_second_pipeline_beside_a_running_one_is_refused_in_one_line(platform: Any) -> None:
    with connect(platform.settings.database_url) as connection:
        connection.execute("SELECT pg_advisory_lock(7262005)")
        code, line, _ = job(platform, "pipeline", "--recipe", "smoke")
    assert code == 1
    assert "another pipeline is running" in line["error"]


def test_a_folder_without_manifest_ends_the_pipeline_in_one_line(platform: Any, tmp_path: Path) -> None:
    code, line, printed = job(platform, "pipeline", "--source", str(tmp_path), "--recipe", "smoke")
    assert code == 1
    assert "manifest.csv" in line["error"]
    assert "Traceback" not in printed


def test_an_image_is_answered_explained_and_read_again(api: Api) -> None:
    answer = api.post(png(), data={"patient_key": "p1", "age": "44"})
    assert answer.status_code == 201, answer.text
    body = answer.json()
    assert abs(sum(body["probabilities"].values()) - 1) < 1e-3
    assert len(answer.headers.get_list("x-request-id")) == 1
    explanation = api.call("GET", body["links"]["explanation"]).json()
    assert len(explanation["text"]) > 40
    assert "not medical advice" in explanation["disclaimer"]
    assert "trained on drawn pictures" in explanation["disclaimer"]
    assert body["disclaimer"] == explanation["disclaimer"]
    record = api.call("GET", body["links"]["self"]).json()
    assert record["explanation"] == explanation
    assert {name: record[name] for name in body} == body


def test_where_the_model_looked_is_shown_over_the_image_and_kept(api: Api) -> None:
    body = api.post(png()).json()
    first, again = (api.call("GET", body["links"]["heatmap"]) for _ in range(2))
    assert first.status_code == 200, first.text
    assert first.headers["x-model-version"] == body["model"]["version"]
    size = (body["quality"]["width"], body["quality"]["height"])
    assert Image.open(io.BytesIO(first.content)).size == size
    assert first.content == again.content


def test_an_explanation_is_streamed_sentence_by_sentence(api: Api) -> None:
    url = api.post(png()).json()["links"]["explanation"]
    streamed = api.call("GET", url, headers={"Accept": "text/event-stream"})
    kinds = [
        line.removeprefix("event: ") for line in streamed.text.splitlines() if line.startswith("event: ")
    ]
    assert kinds[-1] == "done"
    assert set(kinds[:-1]) <= {"sentence", "replace"}
    assert kinds[:-1]
    assert json.loads(streamed.text.rsplit("data: ", 1)[1]) == api.call("GET", url).json()


@contextmanager
def frozen(platform: Any, component: str) -> Iterator[None]:
    """Every process of a component stopped, so that it is there and says nothing."""
    pids = [one.pid for one in marked(platform.home.id, component)]
    assert pids
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def wait_until_stored(platform: Any, ids: list[str]) -> None:
    ends_at = time.monotonic() + 60
    while True:
        with connect(platform.settings.database_url) as connection:
            rows = connection.execute(
                "SELECT answer->>'stored' AS stored FROM predictions WHERE id = ANY(%s::uuid[])", (ids,)
            ).fetchall()
        if [row["stored"] for row in rows] == ["yes"] * len(ids):
            return
        assert time.monotonic() < ends_at, rows
        time.sleep(0.5)


@pytest.mark.parametrize("component", ["s3", "postgresql"])
def test_while_a_store_says_nothing_predictions_are_answered_and_arrive_there_later(
    api: Api, platform: Any, component: str
) -> None:
    assert api.post(png()).json()["stored"] == "yes"
    with frozen(platform, component):
        started_at = time.monotonic()
        answers = [api.post(png()) for _ in range(4)]
        assert [one.status_code for one in answers] == [201] * 4, answers[0].text
        assert [one.json()["stored"] for one in answers] == ["pending"] * 4
        assert time.monotonic() - started_at < 15
        ready = api.call("GET", "/readyz", None)
        assert (ready.status_code, ready.json()["status"]) == (200, "degraded")
    wait_until_stored(platform, [one.json()["id"] for one in answers])


def test_what_a_killed_front_door_had_answered_arrives_through_the_next_one(api: Api, platform: Any) -> None:
    with frozen(platform, "postgresql"):
        answers = [api.post(png()) for _ in range(3)]
        assert [one.json().get("stored") for one in answers] == ["pending"] * 3
        replicas(platform, "front-door")[0].kill()
    wait_until_stored(platform, [one.json()["id"] for one in answers])
    ends_at = time.monotonic() + 60
    while api.post(png()).status_code != 201:
        assert time.monotonic() < ends_at
        time.sleep(0.5)


@contextmanager
def fault(api: Api, version: str, **what: float) -> Iterator[None]:
    put = api.call("PUT", "/v1/faults", "operator", json={"model": VIT, "version": version, **what})
    assert put.status_code == 200, put.text
    try:
        yield
    finally:
        assert api.call("DELETE", "/v1/faults", "operator").status_code == 200


def load_tested(api: Api, version: str) -> tuple[dict[str, Any], str]:
    """The report of a short load test and the verdict in the registry; bounds for a machine that is busy."""
    gates = Gates(load_p99_ms=4_000, load_throughput=0.5, load_requests=9)
    try:
        told = run_load_test(api.settings, version, LoadTest(rate=3, seconds=3, gates=gates))
    except Halted as verdict:
        told = verdict.report
    return told, Registry(api.settings).tags(VIT, version)["load_test"]


def failing(told: dict[str, Any]) -> set[str]:
    return {name for name, verdict in told["gates"].items() if verdict != "pass"}


def test_a_version_stands_its_load_and_does_not_when_it_is_late_or_errs(
    api: Api, platform: Any, halted: tuple[int, dict[str, Any], str]
) -> None:
    version = halted[1]["train"]["model_version"]
    told, verdict = load_tested(api, version)
    assert (failing(told), verdict, told["requests"], told["errors"]) == (set(), "pass", 9, {}), told
    report = ObjectStore(api.settings).get_json(bundles.BUCKET, told["report"])
    assert report["p99_ms"] == told["p99_ms"] >= report["p50_ms"] > 0
    with fault(api, version, delay_ms=4_200):
        told, verdict = load_tested(api, version)
    assert ("load_p99_ms" in failing(told), verdict) == (True, "fail"), told
    assert told["p99_ms"] > 4_200
    with fault(api, version, error_rate=1.0):
        told, verdict = load_tested(api, version)
    assert (failing(told) >= {"load_errors", "load_throughput"}, verdict) == (True, "fail"), told
    assert told["errors"] == {"status 503": 9}
    with connect(api.settings.database_url) as connection:
        rows = connection.execute(
            "SELECT revoked_at FROM api_keys WHERE key_id LIKE 'load-test-%'"
        ).fetchall()
    assert len(rows) >= 3
    assert all(row["revoked_at"] for row in rows)


def test_a_request_id_that_could_be_a_name_comes_back_as_another(api: Api) -> None:
    named = api.post(png(), headers={"X-Request-Id": "Jane-Doe-4711"}).headers.get_list("x-request-id")
    assert len(named) == 1
    assert uuid.UUID(named[0])
    ours = uuid.uuid4().hex
    assert api.post(png(), headers={"X-Request-Id": ours}).headers.get_list("x-request-id") == [ours]


def test_bad_input_over_http_is_refused_as_the_interface_says(api: Api) -> None:
    def status(answer: httpx.Response) -> int:
        assert answer.headers["content-type"] == "application/problem+json"
        return answer.status_code

    assert status(api.post(b"hello there")) == 415
    assert status(api.post(png()[:100])) == 422
    assert status(api.post(png(), role=None)) == 401
    assert status(api.post(png(), role="physician")) == 403
    assert status(api.call("GET", f"/v1/predictions/{uuid.UUID(int=0)}")) == 404


def test_a_body_that_declares_too_much_is_refused_before_it_is_sent(api: Api) -> None:
    host, port = api.settings.api_url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(
            b"POST /v1/predictions HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=b\r\n"
            b"Authorization: Bearer " + api.env["RAYDIOLOGY_CLIENT_KEY"].encode() + b"\r\n"
            b"Content-Length: 1000000000\r\n\r\n--b\r\n"
        )
        assert connection.recv(100).split()[1] == b"413"


def test_served_and_evaluated_logits_are_the_same(
    api: Api, platform: Any, halted: tuple[int, dict[str, Any], str], tmp_path: Path
) -> None:
    """`train` and `serve` are strangers; the bundle holds them together."""
    registry = Registry(platform.settings)
    key = registry.bundle_key(VIT, halted[1]["train"]["model_version"])
    files = bundles.fetch(ObjectStore(platform.settings), key, tmp_path)
    card = ModelCard.read(files["card.json"])
    pixels_HW = to_pixels(png(), card.pixels)
    served = Classifier(tmp_path)
    trained = rebuild(card.architecture, files["model.safetensors"].read_bytes())
    assert np.array_equal(served.logits(pixels_HW[None]), logits(trained, pixels_HW[None], card.pixels))
    probabilities = api.post(png()).json()["probabilities"]
    ours = dict(zip(card.classes, served.probabilities(pixels_HW[None])[0], strict=True))
    assert all(abs(probabilities[name] - ours[name]) < 1e-4 for name in ours)


def test_a_replicas_own_port_refuses_who_has_no_token(api: Api, platform: Any) -> None:
    """Replicas call one another past HAProxy, on ports that Ray opens to all interfaces."""
    ports = [one.port for one in beyond_loopback(platform.home) if one.asks_for_token]
    assert len(ports) >= 3
    for port in ports:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            call = channel.unary_unary("/ray.serve.ASGIService/HandleRequest")
            with pytest.raises(grpc.RpcError) as refused:
                call(b"", timeout=10)
        assert refused.value.code() == grpc.StatusCode.UNAUTHENTICATED


def replicas(platform: Any, application: str) -> list[psutil.Process]:
    return [
        process
        for process in psutil.process_iter(["cmdline"])
        if " ".join(process.info["cmdline"] or []).startswith(f"ray::ServeReplica:{application}")
        and process.environ().get("RAYDIOLOGY_HOME") == str(platform.home.path)
    ]


def test_a_replica_that_is_killed_comes_back_by_itself_and_is_one_incident_and_no_error_of_the_model(
    api: Api, platform: Any
) -> None:
    (replica,) = replicas(platform, "xray-vit")
    began_at = datetime.now(UTC)
    replica.kill()
    ends_at = time.monotonic() + 120
    while (answer := api.post(png())).status_code != 201:
        assert answer.status_code == 503, answer.text
        assert answer.headers["retry-after"]
        assert time.monotonic() < ends_at
        time.sleep(1)
    with connect(platform.settings.database_url) as connection:
        rows = connection.execute(
            "SELECT attempts FROM failed_requests WHERE created_at >= %s UNION ALL "
            "SELECT attempts FROM predictions WHERE created_at >= %s",
            (began_at, began_at),
        ).fetchall()
    tried = [one for row in rows for one in row["attempts"]]
    assert {one["outcome"] for one in tried} == {"infrastructure", "ok"}, tried
    assert len({one["incident"] for one in tried if one["outcome"] == "infrastructure"}) == 1, tried


def test_what_was_served_is_served_again_after_down_and_up(api: Api, platform: Any) -> None:
    before = api.post(png(), headers={"Idempotency-Key": "before"}).json()
    assert platform.command("down").returncode == 0
    started = platform.command("up")
    assert started.returncode == 0, started.stdout + started.stderr
    code, line, printed = job(platform, "deploy", "--restore")
    assert code == 0, printed
    assert "front-door" in line["applications"]
    again = api.post(png(), headers={"Idempotency-Key": "before"})
    assert again.json() == before
    assert api.post(png()).json()["probabilities"] == before["probabilities"]
