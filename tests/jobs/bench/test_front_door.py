"""The arithmetic of the serving benchmarks, and their client on a real server."""

import asyncio
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.requests import Request

from jobs.bench import load
from jobs.bench.figure import Figure
from jobs.bench.front_door import cost_ms, marked
from jobs.bench.load import Seen, multipart
from jobs.bench.serve_stage import fixed_machine
from jobs.bench.serving import best_within, sent_after_s
from jobs.runtime.entry import JobError
from jobs.runtime.throwaway_platform import Watch
from serve.front_door.upload import parse


def test_a_request_costs_what_was_used_beyond_the_idle_share() -> None:
    watch = Watch(lambda: [], cpu_s=3.0, wall_s=10.0)
    assert cost_ms(watch, 0.1, 1000) == pytest.approx(2.0)


def test_a_figure_above_its_mark_says_so_and_one_at_it_does_not() -> None:
    above, at = (Figure.of("x", ours, 1.0, "peer", "ms") for ours in (0.81, 0.8))
    assert "MISSES its mark of 0.8" in marked(above, 0.8).peer_name
    assert marked(at, 0.8) == at


def test_a_percentile_is_one_of_the_latencies() -> None:
    seen = Seen(seconds=2.0, latencies_ms=[float(one) for one in range(100, 0, -1)])
    assert (seen.percentile_ms(0.5), seen.percentile_ms(0.99), seen.a_second) == (51.0, 100.0, 50.0)


def test_the_client_s_upload_is_what_the_front_door_reads() -> None:
    body = multipart(b"\x89film\r\n", "p7")
    headers = [(b"content-type", f"multipart/form-data; boundary={load.BOUNDARY}".encode())]

    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": body, "more_body": False}

    request = Request({"type": "http", "method": "POST", "headers": headers}, receive)
    upload = asyncio.run(parse(request, 1000))
    assert (upload.blob, upload.patient_key) == (b"\x89film\r\n", "p7")


def test_the_machine_of_a_benchmark_does_not_grow() -> None:
    machine = {"front_door": {"num_replicas": 2}, "classifier": {"autoscaling_config": {"max_replicas": 2}}}
    fixed = fixed_machine(machine)
    assert [one["num_replicas"] for one in fixed.values()] == [1, 1]
    assert "autoscaling_config" not in fixed["classifier"]


@pytest.fixture
def server(request: pytest.FixtureRequest) -> Iterator[str]:
    """Answers every POST with the status that the test asks for."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(request.param)
            self.send_header("content-length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_: object) -> None:
            return None

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as one:
        thread = threading.Thread(target=one.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{one.server_port}/"
        one.shutdown()
        thread.join()


@pytest.mark.parametrize("server", [201], indirect=True)
def test_the_client_counts_what_was_answered_in_its_time(server: str, tmp_path: Path) -> None:
    body = tmp_path / "body"
    body.write_bytes(b"x")
    seen = load.finished(load.start(server, body, key="k", connections=2, seconds=0.5))
    assert seen.answered > 2
    assert all(0 < one <= 500 for one in seen.latencies_ms)


@pytest.mark.parametrize("server", [503], indirect=True)
def test_a_run_in_which_requests_fail_gives_no_figure(server: str, tmp_path: Path) -> None:
    body = tmp_path / "body"
    body.write_bytes(b"x")
    with pytest.raises(JobError, match="503"):
        load.finished(load.start(server, body, key="k", connections=1, seconds=0.3))


def test_throughput_counts_only_loads_that_keep_the_bound_in_every_round() -> None:
    def ran(answers: int, slowest_ms: float) -> Seen:
        return Seen(seconds=1.0, latencies_ms=[10.0] * (answers - 2) + [slowest_ms] * 2)

    found = {4: [ran(40, 90.0), ran(44, 90.0)], 8: [ran(60, 90.0), ran(60, 310.0)]}
    assert best_within(found, 300.0) == 42.0
    with pytest.raises(JobError, match="best was 90"):
        best_within(found, 80.0)


def test_too_little_throughput_says_so() -> None:
    below, at = (Figure.of("x", ours, 1.0, "peer", "requests/s") for ours in (0.99, 1.0))
    assert "MISSES its mark of 1" in marked(below, at_least=1.0).peer_name
    assert marked(at, at_least=1.0) == at


def test_a_rollback_lasts_until_the_last_request_to_the_bad_version() -> None:
    sent = {"1": [10.0 + nth / 10 for nth in range(50)], "2": [9.0 + nth / 10 for nth in range(24)]}
    assert sent_after_s(sent, "2", 10.05) == pytest.approx(1.25)
    assert sent_after_s(sent, "2", 11.4) == 0.0
    figure = Figure.of("x", sent_after_s({**sent, "2": [*sent["2"], 12.1]}, "2", 10.05), 1.0, "a second", "s")
    assert "MISSES" in marked(figure, 2.0).peer_name


@pytest.mark.parametrize("decided_s", [9.2, 14.8])
def test_a_rollback_that_too_few_requests_saw_has_no_time(decided_s: float) -> None:
    sent = {"1": [10.0 + nth / 10 for nth in range(50)], "2": [9.0 + nth / 10 for nth in range(24)]}
    with pytest.raises(JobError, match="too few"):
        sent_after_s(sent, "2", decided_s)
