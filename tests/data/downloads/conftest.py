"""A publisher on loopback."""

import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from cluster.settings import Kaggle
from data.downloads.download import FetchConfig, Fetched, fetch
from data.sources.dataset_card import Download
from tests.data.downloads.publishers import PAGE, QUICK, Publisher


@pytest.fixture
def publisher() -> Publisher:
    return Publisher()


@pytest.fixture
def address(publisher: Publisher) -> Iterator[str]:
    """A real HTTP server on loopback that behaves as `publisher` says."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            publisher.asked.append(dict(self.headers))
            publisher.before(len(publisher.asked))
            if publisher.statuses:
                status, headers = publisher.statuses.pop(0)
                self.send_response(status)
                for name, value in {"Content-Length": "0", **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                return
            start = self._start()
            if start > len(publisher.body):
                self.send_response(416)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self._send(publisher.body, start)

        def _start(self) -> int:
            asked, condition = self.headers.get("Range"), self.headers.get("If-Range")
            known = publisher.etag or publisher.headers.get("Last-Modified")
            if not asked or not publisher.ranges or (condition and condition != known):
                return 0
            return int(asked.removeprefix("bytes=").removesuffix("-"))

        def _send(self, body: bytes, start: int) -> None:
            self.send_response(206 if start else 200)
            if start:
                first = start - 7 if publisher.wrong_piece else start
                self.send_header("Content-Range", f"bytes {first}-{len(body) - 1}/{len(body)}")
            if publisher.length:
                self.send_header("Content-Length", str(len(body) - start))
            else:
                self.send_header("Connection", "close")
            if publisher.etag:
                self.send_header("ETag", publisher.etag)
            for name, value in publisher.headers.items():
                self.send_header(name, value)
            self.end_headers()
            end = publisher.break_after.pop(0) if publisher.break_after else len(body)
            self.wfile.write(body[start:][:end])
            self.wfile.flush()
            self.close_connection = end < len(body) - start or not publisher.length

        def log_message(self, *_: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_: Any) -> None:
            """A client that hangs up is no news here."""

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/api/v1/datasets/download/owner/set"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def get(address: str, tmp_path: Path) -> Callable[..., Fetched]:
    def run(config: FetchConfig = QUICK, kaggle: Kaggle | None = None, **known: Any) -> Fetched:
        download = Download(
            **{"url": address, "page": PAGE, "file_name": "set-1.zip", "access": "open", **known}
        )
        return fetch(download, tmp_path / "to", kaggle=kaggle, config=config)

    return run
