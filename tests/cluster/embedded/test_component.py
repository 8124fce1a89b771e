"""Is there an HTTP server behind a port? Whatever is there, the answer is a status or None."""

import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from cluster.embedded.component import http_status


@contextmanager
def server(says: bytes) -> Iterator[str]:
    class Speaker(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(4096)
            self.request.sendall(says)

    with socketserver.TCPServer(("127.0.0.1", 0), Speaker) as listening:
        thread = threading.Thread(target=listening.handle_request)
        thread.start()
        yield f"http://127.0.0.1:{listening.server_address[1]}/"
        thread.join()


@pytest.mark.parametrize(
    ("says", "status"),
    [
        (b"HTTP/1.1 204 No Content\r\n\r\n", 204),
        (b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n", 503),
        (b"N\x00\x00\x00 this is PostgreSQL", None),
        (b"", None),
    ],
)
def test_the_status_is_told_and_another_protocol_is_nobody(says: bytes, status: int | None) -> None:
    with server(says) as url:
        assert http_status(url) == status


def test_a_closed_port_is_nobody() -> None:
    with server(b"") as url:
        http_status(url)
    assert http_status(url) is None
