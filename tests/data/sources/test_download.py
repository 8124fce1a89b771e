"""Fetching from a server that does what servers do: breaks off, ignores ranges, changes the file, is slow, refuses."""

import base64
import hashlib
import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from cluster.settings import Kaggle, SettingsError
from data.sources.dataset_card import Download
from data.sources.download import FetchConfig, Fetched, fetch
from data.sources.publisher import DownloadError, check_status

BODY = bytes(range(256)) * 4096  # a mebibyte
OTHER = BODY[::-1]
PAGE = "https://example.org/datasets/owner/set"
QUICK = FetchConfig(tries=3, first_wait_s=0.01, longest_wait_s=0.05, timeout_s=5, free_bytes=0)
SOMEBODY = Kaggle(username="somebody", key="s3cret")


@dataclass
class Publisher:
    """How the server behaves, and what it was asked."""

    body: bytes = BODY
    etag: str | None = '"v1"'
    break_after: list[int] = field(default_factory=list)
    """For each answer in turn: after how many bytes of it the connection is dropped."""
    ranges: bool = True
    statuses: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    """Answers to give first, instead of the file."""
    headers: dict[str, str] = field(default_factory=dict)
    length: bool = True
    before: Callable[[int], None] = lambda nth: None
    """Called with the number of the request before it is answered."""
    wrong_piece: bool = False
    asked: list[dict[str, str]] = field(default_factory=list)


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


def left(tmp_path: Path) -> set[str]:
    return {one.name for one in (tmp_path / "to").iterdir() if not one.name.endswith(".lock")}


def refusal(get: Callable[..., Fetched], **known: Any) -> str:
    with pytest.raises(DownloadError) as caught:
        get(**known)
    message = str(caught.value)
    assert "\n" not in message
    assert "s3cret" not in message
    return message


def test_a_file_appears_under_its_name_when_it_is_whole(
    get: Callable[..., Fetched], publisher: Publisher, tmp_path: Path
) -> None:
    publisher.before = lambda nth: shutil.copytree(tmp_path / "to", tmp_path / "meanwhile")
    fetched = get()
    assert fetched.path.read_bytes() == BODY
    assert fetched.verified_by == "size"
    assert left(tmp_path) == {"set-1.zip"}
    assert "set-1.zip" not in {one.name for one in (tmp_path / "meanwhile").iterdir()}
    assert publisher.asked[0]["Accept-Encoding"] == "identity"


def test_a_file_that_is_there_is_not_fetched_again(get: Callable[..., Fetched], publisher: Publisher) -> None:
    get()
    get(bytes=len(BODY), sha256=hashlib.sha256(BODY).hexdigest())
    assert len(publisher.asked) == 1


def test_a_broken_transfer_goes_on_where_it_stopped(
    get: Callable[..., Fetched], publisher: Publisher
) -> None:
    publisher.break_after = [400_000, 300_000]
    assert get(sha256=hashlib.sha256(BODY).hexdigest()) == get(sha256=hashlib.sha256(BODY).hexdigest())
    assert [asked.get("Range") for asked in publisher.asked] == [None, "bytes=400000-", "bytes=700000-"]
    assert publisher.asked[1]["If-Range"] == '"v1"'


def test_the_next_run_goes_on_where_the_last_one_gave_up(
    get: Callable[..., Fetched], publisher: Publisher, tmp_path: Path
) -> None:
    publisher.break_after = [400_000, 0, 0, 0]
    assert "broke off 3 times in a row" in refusal(get)
    assert left(tmp_path) == {"set-1.zip.part", "set-1.zip.part.json"}
    before = len(publisher.asked)
    publisher.break_after = []
    assert get().path.read_bytes() == BODY
    assert [asked.get("Range") for asked in publisher.asked[before:]] == ["bytes=400000-"]


def test_a_transfer_that_gets_on_is_never_given_up(get: Callable[..., Fetched], publisher: Publisher) -> None:
    publisher.break_after = [100_000] * 9
    assert get().path.read_bytes() == BODY
    assert len(publisher.asked) == 10 > QUICK.tries


def test_a_server_that_ignores_ranges_sends_it_all_again(
    get: Callable[..., Fetched], publisher: Publisher
) -> None:
    publisher.break_after, publisher.ranges = [400_000], False
    assert get().path.read_bytes() == BODY


@pytest.mark.parametrize("etag", ['"v1"', None, 'W/"weak"'])
def test_a_file_that_changed_between_two_tries_is_never_glued_together(
    get: Callable[..., Fetched], publisher: Publisher, etag: str | None
) -> None:
    publisher.break_after, publisher.etag = [400_000], etag

    def change(nth: int) -> None:
        if nth == 2:
            publisher.body = OTHER
            publisher.etag = '"v2"' if etag == '"v1"' else etag

    publisher.before = change
    assert get().path.read_bytes() == OTHER


def test_a_file_that_became_shorter_is_fetched_anew(
    get: Callable[..., Fetched], publisher: Publisher
) -> None:
    publisher.break_after = [400_000]

    def shrink(nth: int) -> None:
        if nth == 2:
            publisher.body = OTHER[:1000]

    publisher.before = shrink
    assert get().path.read_bytes() == OTHER[:1000]


def test_another_piece_than_was_asked_for_is_thrown_away(
    get: Callable[..., Fetched], publisher: Publisher
) -> None:
    publisher.break_after, publisher.wrong_piece = [400_000], True
    assert get().path.read_bytes() == BODY
    assert [asked.get("Range") for asked in publisher.asked] == [None, "bytes=400000-", None]


def test_an_old_date_serves_where_there_is_no_etag(get: Callable[..., Fetched], publisher: Publisher) -> None:
    publisher.break_after, publisher.etag = [400_000], None
    publisher.headers = {"Last-Modified": "Tue, 05 Jan 2021 10:00:00 GMT"}
    assert get().path.read_bytes() == BODY
    assert publisher.asked[1]["If-Range"] == "Tue, 05 Jan 2021 10:00:00 GMT"


def test_a_publisher_that_is_slow_is_waited_for_and_one_that_hangs_is_asked_again(
    get: Callable[..., Fetched], publisher: Publisher
) -> None:
    publisher.before = lambda nth: time.sleep(0.6 if nth == 1 else 0)
    assert get(config=FetchConfig(timeout_s=0.2, first_wait_s=0.01, free_bytes=0)).path.read_bytes() == BODY
    assert len(publisher.asked) == 2


def test_a_busy_publisher_is_asked_again_when_it_says(
    get: Callable[..., Fetched], publisher: Publisher
) -> None:
    publisher.statuses = [(429, {"Retry-After": "0"}), (503, {}), (502, {"Retry-After": "Wed, 1 Jan"})]
    assert get(config=FetchConfig(first_wait_s=0.01, free_bytes=0)).path.read_bytes() == BODY


@pytest.mark.parametrize(
    ("headers", "algorithm"),
    [
        (
            {"x-goog-hash": f"crc32c=AAAAAA==,md5={base64.b64encode(hashlib.md5(BODY).digest()).decode()}"},
            "md5",
        ),
        ({"Repr-Digest": f"sha-256=:{base64.b64encode(hashlib.sha256(BODY).digest()).decode()}:"}, "sha256"),
    ],
)
def test_the_publishers_own_checksum_is_held_to(
    get: Callable[..., Fetched], publisher: Publisher, tmp_path: Path, headers: dict[str, str], algorithm: str
) -> None:
    publisher.headers, publisher.body = headers, OTHER
    assert f"another {algorithm} than the publisher's" in refusal(get)
    assert left(tmp_path) == set()
    publisher.body = BODY
    assert get().verified_by == algorithm


def test_a_file_that_is_not_the_cards_is_thrown_away(
    get: Callable[..., Fetched], publisher: Publisher, tmp_path: Path
) -> None:
    assert "another sha256 than its card's" in refusal(get, sha256="0" * 64)
    assert "its card says 7" in refusal(get, bytes=7)
    assert left(tmp_path) == set()


def test_a_damaged_file_under_the_right_name_is_noticed(
    get: Callable[..., Fetched], publisher: Publisher, tmp_path: Path
) -> None:
    known = {"sha256": hashlib.sha256(BODY).hexdigest()}
    get(**known).path.write_bytes(OTHER)
    assert "Remove" in refusal(get, **known)
    assert left(tmp_path) == {"set-1.zip"}


def test_a_note_that_is_damaged_costs_a_new_start_and_no_more(
    get: Callable[..., Fetched], publisher: Publisher, tmp_path: Path
) -> None:
    publisher.break_after = [400_000, 0, 0, 0]
    refusal(get)
    (tmp_path / "to/set-1.zip.part.json").write_text("{")
    publisher.break_after = []
    assert get().path.read_bytes() == BODY
    assert "Range" not in publisher.asked[-1]


def test_an_answer_without_a_length_is_taken_and_held_to_the_card(
    get: Callable[..., Fetched], publisher: Publisher
) -> None:
    publisher.length, publisher.break_after = False, [400_000]
    assert "400000 bytes" in refusal(get, bytes=len(BODY))
    assert get().verified_by == "nothing"


@pytest.mark.parametrize(
    ("status", "part"),
    [
        (401, "refuses the credentials"),
        (403, "accept the conditions of use"),
        (404, "no such file any more"),
        (400, "answers 400"),
    ],
)
def test_a_refusal_says_what_a_person_must_do(
    get: Callable[..., Fetched], publisher: Publisher, status: int, part: str
) -> None:
    publisher.statuses = [(status, {})]
    message = refusal(get, access="kaggle", kaggle=SOMEBODY)
    assert part in message
    assert status == 401 or PAGE in message
    assert len(publisher.asked) == 1


def test_an_encrypted_address_that_leads_to_an_open_one_is_not_followed() -> None:
    answer = httpx.Response(200, request=httpx.Request("GET", "http://example.org/set.zip"))
    with pytest.raises(DownloadError, match="without encryption"):
        check_status(
            Download(url="https://example.org/x", page=PAGE, file_name="x.zip", access="open"), answer
        )


def test_kaggle_without_credentials_asks_for_them_before_anything_is_sent(
    get: Callable[..., Fetched], publisher: Publisher
) -> None:
    assert "set KAGGLE_USERNAME and KAGGLE_KEY" in refusal(get, access="kaggle")
    assert publisher.asked == []


@pytest.mark.parametrize(
    ("who", "header"),
    [
        (SOMEBODY, f"Basic {base64.b64encode(b'somebody:s3cret').decode()}"),
        (Kaggle(username="somebody", key="s3cret", token="KGAT_1"), "Bearer KGAT_1"),
    ],
)
def test_credentials_go_to_the_publisher_and_not_where_it_leads(
    get: Callable[..., Fetched], publisher: Publisher, address: str, who: Kaggle, header: str
) -> None:
    elsewhere = address.replace("127.0.0.1", "localhost")
    publisher.statuses = [(302, {"Location": elsewhere})]
    publisher.break_after = [400_000]
    assert get(access="kaggle", kaggle=who).path.read_bytes() == BODY
    assert [asked.get("Authorization") for asked in publisher.asked] == [header, None, header]
    assert "s3cret" not in repr(who)


def test_credentials_are_read_from_the_environment_and_half_of_them_is_a_mistake() -> None:
    assert Kaggle.from_env({}) is None
    assert Kaggle.from_env({"KAGGLE_USERNAME": "a", "KAGGLE_KEY": "b"}) == Kaggle(username="a", key="b")
    assert Kaggle.from_env({"KAGGLE_API_TOKEN": "t"}) == Kaggle(token="t")
    with pytest.raises(SettingsError, match="not set: KAGGLE_KEY"):
        Kaggle.from_env({"KAGGLE_USERNAME": "a"})


def test_a_full_disk_is_said_before_it_is_full_and_when_it_is(
    get: Callable[..., Fetched], publisher: Publisher, tmp_path: Path
) -> None:
    assert "MB free" in refusal(get, config=FetchConfig(free_bytes=2**60))
    (tmp_path / "to/set-1.zip.part").unlink(missing_ok=True)
    (tmp_path / "to/set-1.zip.part").symlink_to("/dev/full")
    assert "is full" in refusal(get)


def test_a_folder_that_cannot_be_written_is_one_line(
    get: Callable[..., Fetched], publisher: Publisher, tmp_path: Path
) -> None:
    (tmp_path / "to").write_text("a file")
    assert "cannot write set-1.zip" in refusal(get)


def test_two_runs_do_not_write_the_same_file(
    get: Callable[..., Fetched], publisher: Publisher, tmp_path: Path
) -> None:
    arrived, release = threading.Event(), threading.Event()
    publisher.before = lambda nth: (arrived.set(), release.wait(10))[0]
    results: list[Fetched] = []
    first = threading.Thread(target=lambda: results.append(get()))
    first.start()
    assert arrived.wait(10)
    try:
        assert "another run is fetching set-1.zip" in refusal(get)
    finally:
        release.set()
        first.join()
    assert results[0].path.read_bytes() == BODY


def test_progress_is_told_in_megabytes(publisher: Publisher, address: str, tmp_path: Path) -> None:
    told: list[tuple[int, int, str]] = []
    download = Download(url=address, page=PAGE, file_name="set-1.zip", access="open")
    publisher.break_after = [400_000]
    fetch(download, tmp_path, config=QUICK, progress=lambda *step: told.append(step))
    assert told[-1] == (1, 1, "megabytes of set-1.zip")
    assert any("broken off" in note for _, _, note in told)


def test_what_was_noted_of_a_partial_file_is_plain_json(
    get: Callable[..., Fetched], publisher: Publisher, tmp_path: Path
) -> None:
    publisher.break_after = [400_000, 0, 0, 0]
    refusal(get, access="kaggle", kaggle=SOMEBODY)
    noted = (tmp_path / "to/set-1.zip.part.json").read_text()
    assert json.loads(noted)["validator"] == '"v1"'
    assert "s3cret" not in noted
