"""The client of the front door's benchmark."""

import asyncio
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.requests import Request

from jobs.bench import load
from jobs.bench.load import Seen, multipart
from jobs.runtime.entry import JobError
from serve.front_door.upload import parse


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
