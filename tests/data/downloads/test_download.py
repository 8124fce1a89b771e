"""Fetching from a server that does what servers do: breaks off, ignores ranges, changes the file, is slow, refuses."""

import base64
import hashlib
import json
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cluster.settings import Kaggle
from data.downloads.download import FetchConfig, Fetched, fetch
from data.sources.dataset_card import Download
from tests.data.downloads.publishers import BODY, PAGE, QUICK, Publisher, refusal

OTHER = BODY[::-1]
SOMEBODY = Kaggle(username="somebody", key="s3cret")


def left(tmp_path: Path) -> set[str]:
    return {one.name for one in (tmp_path / "to").iterdir() if not one.name.endswith(".lock")}


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
