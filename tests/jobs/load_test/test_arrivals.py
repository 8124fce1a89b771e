"""The sender of load tests against small real servers: on time whatever they do, and it says what went wrong."""

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from jobs.load_test.arrivals import Plan
from jobs.load_test.job import _sent
from jobs.load_test.report import reported
from jobs.runtime.entry import JobError

STALL_S = 0.8
Answered = Callable[[int], tuple[int, str]]


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def __init__(self, answered: Answered) -> None:
        self.answered, self.count, self.lock = answered, 0, threading.Lock()
        self.bodies: list[bytes] = []
        self.headers: list[dict[str, str]] = []
        super().__init__(("127.0.0.1", 0), Handler)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        with self.server.lock:
            nth = self.server.count
            self.server.count += 1
            self.server.bodies.append(body)
            self.server.headers.append({name.lower(): value for name, value in self.headers.items()})
        status, version = self.server.answered(nth)
        self.send_response(status)
        self.send_header("X-Model-Version", version)
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_: Any) -> None:
        """Quiet."""

    def handle(self) -> None:
        with contextlib.suppress(ConnectionError):  # of who has not waited
            super().handle()


@contextmanager
def serving(answered: Answered) -> Iterator[Server]:
    server = Server(answered)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(f"pixels of {name}".encode())
    return Plan(
        api_url="", keys=["k1", "k2"], version="7", images=str(tmp_path), rate=50, seconds=2, timeout_s=5
    )


def to(server: Server, plan: Plan) -> Plan:
    return replace(plan, api_url=f"http://127.0.0.1:{server.server_port}")


def test_a_server_that_stalls_once_is_seen_by_every_request_that_was_due_meanwhile(plan: Plan) -> None:
    """A sender that waits for its answers would have sent one request into the stall, and called it 1 %."""
    stall: dict[str, float] = {}

    def stalls(nth: int) -> tuple[int, str]:
        if nth == 30:
            stall["until"] = time.monotonic() + STALL_S
        time.sleep(max(0.0, stall.get("until", 0.0) - time.monotonic()))
        return 201, "7"

    with serving(stalls) as server:
        sent = _sent(to(server, plan))
    assert len(sent) == 100
    assert [round(one.due_s * 50) for one in sorted(sent, key=lambda one: one.due_s)] == list(range(100))
    met = [one for one in sent if one.ms > 100]
    assert len(met) >= 30  # of the 40 that were due in 0.8 s
    found = reported(plan, sent)
    assert found.p99_ms > 700
    assert found.p95_ms > 500
    assert not found.errors


def test_requests_carry_the_version_and_take_turns_with_keys_and_images(plan: Plan) -> None:
    with serving(lambda nth: (201, "7")) as server:
        sent = _sent(to(server, replace(plan, rate=20, seconds=1)))
    assert (len(sent), {one.error for one in sent}) == (20, {""})
    assert {one["x-raydiology-version"] for one in server.headers} == {"7"}
    assert Counter(one["authorization"] for one in server.headers) == {"Bearer k1": 10, "Bearer k2": 10}
    for name in ("a.png", "b.png"):
        assert sum(f"pixels of {name}".encode() in body for body in server.bodies) == 10


def test_each_failure_has_its_kind_and_the_champions_answer_is_one(plan: Plan) -> None:
    def mixed(nth: int) -> tuple[int, str]:
        if nth % 4 == 3:
            time.sleep(2)
        return {1: (503, "7"), 2: (201, "6")}.get(nth % 4, (201, "7"))

    with serving(mixed) as server:
        sent = _sent(to(server, replace(plan, rate=20, seconds=1, timeout_s=1.0)))
    kinds = Counter(one.error for one in sent)
    assert (kinds[""], kinds["status 503"], kinds["answered by the champion"]) == (5, 5, 5)
    (other,) = set(kinds) - {"", "status 503", "answered by the champion"}
    assert "time" in other.lower()
    assert all(one.ms >= 990 for one in sent if one.error == other)


def test_where_nobody_listens_every_request_has_failed(plan: Plan) -> None:
    sent = _sent(replace(plan, api_url="http://127.0.0.1:9", rate=20, seconds=1))
    assert {one.error for one in sent} == {"ConnectionRefusedError"}
    assert reported(replace(plan, rate=20, seconds=1), sent).throughput == 0


def test_a_sender_that_breaks_says_so_in_one_line(plan: Plan) -> None:
    with pytest.raises(JobError, match=r"the sender ended with exit code 1: .*nowhere"):
        _sent(replace(plan, images="/nowhere"))
