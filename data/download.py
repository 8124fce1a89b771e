"""Fetch a publisher's archive over HTTPS: resumed, verified, and visible under its name only when it is whole.

`jobs.ingest --download` calls `fetch` with what a card names. A transfer that breaks is taken up where it stopped,
as long as the publisher still has the same file (`Range` with `If-Range`); else it starts anew. Knows no dataset.

Source: RFC 9110, 13.1.5 (If-Range) and 14 (range requests); RFC 9530 (Repr-Digest); Google Cloud Storage's
`x-goog-hash`, which Kaggle's files carry.
"""

import base64
import binascii
import email.utils
import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from cluster.settings import Kaggle
from data.sources.card import Download

Progress = Callable[[int, int, str], None]

MEGABYTE = 10**6
TELL_EVERY_S = 1.0
SAFE_SECONDS = 60.0
"""A date tells versions of a file apart when it is this much older than the answer (RFC 9110, 8.8.2.2)."""
LATER = (408, 425, 429, 500, 502, 503, 504)
"""Answers after which the same question may be asked again."""
CONTENT_RANGE = re.compile(r"bytes (?P<start>\d+)-\d+/(?P<total>\d+|\*)")


class DownloadError(OSError):
    """The file cannot be had; one line that says what to do. What was fetched stays, unless it was wrong."""


@dataclass(frozen=True, kw_only=True)
class FetchConfig:
    tries: int = 8
    """In a row without a new byte; progress starts the count anew."""
    first_wait_s: float = 1.0
    """Doubled from try to try."""
    longest_wait_s: float = 60.0
    """Also of what a publisher asks for with `Retry-After`."""
    timeout_s: float = 60.0
    """For an answer to begin, and between two pieces of it."""
    free_bytes: int = 2**30
    """Left free on the disk."""


@dataclass(frozen=True, kw_only=True)
class Fetched:
    path: Path
    verified_by: str
    """`sha256`, `md5`, `size` or `nothing`: the strongest of what the card and the publisher told."""


class _Broken(Exception):
    """This try failed; another may succeed."""

    def __init__(self, what: str, *, wait_s: float | None = None) -> None:
        super().__init__(what)
        self.wait_s = wait_s


@dataclass(frozen=True, kw_only=True)
class _Partial:
    """What is known of the file that is being fetched; kept beside it, for the next run."""

    url: str
    validator: str
    """For `If-Range`: a strong ETag or a date that is old enough; empty: it cannot be resumed."""
    total: int | None
    checksum: tuple[str, str] | None
    """Algorithm and hexadecimal digest, as the publisher's headers tell."""


def fetch(
    download: Download,
    folder: Path,
    *,
    kaggle: Kaggle | None = None,
    config: FetchConfig | None = None,
    progress: Progress | None = None,
) -> Fetched:
    """Fetch one file into a folder, unless it is there.

    Raises:
        DownloadError: credentials are missing or refused, conditions not accepted, the disk is full, the publisher
            does not answer, or the file is not the one that it should be.
    """
    settings, tell = config or FetchConfig(), progress or (lambda done, total, note: None)
    target = folder / download.file_name
    if target.exists():
        return Fetched(path=target, verified_by=_verify(download, target, None))
    headers = _credentials(download, kaggle)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        part = target.with_name(f"{target.name}.part")
        with _alone(part), httpx.Client(timeout=settings.timeout_s, follow_redirects=True) as client:
            known = _fetch_all(client, download, part, headers, settings, tell)
            try:
                verified_by = _verify(download, part, known)
            except DownloadError:
                _forget(part)
                raise
            part.rename(target)
            _note_path(part).unlink(missing_ok=True)
    except OSError as error:
        raise _explained(error, download, folder) from error
    return Fetched(path=target, verified_by=verified_by)


def _fetch_all(
    client: httpx.Client,
    download: Download,
    part: Path,
    headers: Mapping[str, str],
    config: FetchConfig,
    tell: Progress,
) -> _Partial:
    """Ask until the part file is complete."""
    failures = 0
    while True:
        before = _size(part)
        try:
            return _try(client, download, part, headers, config, tell)
        except (_Broken, httpx.TransportError) as error:
            failures = 1 if _size(part) > before else failures + 1
            what = str(error) or type(error).__name__
            if failures >= config.tries:
                host = urlsplit(download.url).hostname
                raise DownloadError(
                    f"{host} broke off {failures} times in a row, the last time with: {what}. What was fetched stays "
                    f"({_size(part) // MEGABYTE} MB): run the same command again later"
                ) from error
            wanted = error.wait_s if isinstance(error, _Broken) else None
            wait_s = min(wanted or config.first_wait_s * 2 ** (failures - 1), config.longest_wait_s)
            noted = _read_note(part)
            total = (noted.total if noted else None) or _size(part)
            tell(
                _size(part) // MEGABYTE, total // MEGABYTE, f"megabytes; broken off, again in {wait_s:.0f} s"
            )
            time.sleep(wait_s)


def _try(
    client: httpx.Client,
    download: Download,
    part: Path,
    headers: Mapping[str, str],
    config: FetchConfig,
    tell: Progress,
) -> _Partial:
    """One request for all that is missing."""
    have, known = _size(part), _read_note(part)
    if known is None or known.url != download.url or not known.validator:
        have = 0
    if have and known and known.total == have:
        return known
    asked = {**headers, "Accept-Encoding": "identity"}
    if have and known:
        asked |= {"Range": f"bytes={have}-", "If-Range": known.validator}
    with client.stream("GET", download.url, headers=asked) as answer:
        check_status(download, answer)
        if answer.status_code == 416:
            _forget(part)
            raise _Broken("the publisher has another file now")
        resumed = answer.status_code == 206
        told = _told(download, answer, resumed)
        if resumed and (known is None or not _continues(answer, have, known)):
            _forget(part)
            raise _Broken("the publisher sent another piece than was asked for")
        start = have if resumed else 0
        if resumed and known is not None:
            told = known
        _check_space(part.parent, (told.total or 0) - start, config)
        with part.open("r+b" if resumed else "wb") as file:
            _write_note(part, told)  # after an old part was emptied: its bytes never get the new file's note
            file.seek(start)
            done, told_at = start, 0.0
            for chunk in answer.iter_raw():
                file.write(chunk)
                done += len(chunk)
                if time.monotonic() - told_at >= TELL_EVERY_S or done == told.total:
                    told_at = time.monotonic()
                    tell(
                        done // MEGABYTE, (told.total or 0) // MEGABYTE, f"megabytes of {download.file_name}"
                    )
            file.flush()
            os.fsync(file.fileno())
    if told.total is not None and done != told.total:
        raise _Broken(f"{done} bytes came, and {told.total} were told")
    return told


def check_status(download: Download, answer: httpx.Response) -> None:
    """Sort an answer: go on, try again, or say what a person must do.

    Raises:
        DownloadError: a person must do something, or the answer came from an address without encryption.
    """
    status, host = answer.status_code, answer.url.host
    if urlsplit(download.url).scheme == "https" and answer.url.scheme != "https":
        raise DownloadError(f"{host} leads to an address without encryption: it is not followed")
    if status in (200, 206, 416):
        return
    if status in LATER:
        raise _Broken(f"{host} answers {status}", wait_s=_retry_after(answer))
    if status == 401:
        raise DownloadError(
            f"{host} refuses the credentials (401): make a new token at https://www.kaggle.com/settings, set "
            "KAGGLE_USERNAME and KAGGLE_KEY, and run again"
        )
    if status == 403:
        raise DownloadError(
            f"{host} refuses the file (403): open {download.page} in a browser with the same account, accept the "
            "conditions of use there, and run again"
        )
    if status in (404, 410):
        raise DownloadError(
            f"{host} has no such file any more ({status}): see {download.page}; fetch it by hand and give its folder "
            "with --folder, or correct the address in the source's card"
        )
    raise DownloadError(f"{host} answers {status}: see {download.page}, or try again later")


def _credentials(download: Download, kaggle: Kaggle | None) -> dict[str, str]:
    if download.access == "open":
        return {}
    if kaggle is None:
        raise DownloadError(
            f"{urlsplit(download.url).hostname} asks for an account: make a token at "
            "https://www.kaggle.com/settings, set KAGGLE_USERNAME and KAGGLE_KEY (or KAGGLE_API_TOKEN), and run "
            f"again; or fetch {download.page} by hand as {download.file_name} and give its folder with --folder"
        )
    if kaggle.token:
        return {"Authorization": f"Bearer {kaggle.token}"}
    pair = base64.b64encode(f"{kaggle.username}:{kaggle.key}".encode()).decode()
    return {"Authorization": f"Basic {pair}"}


def _told(download: Download, answer: httpx.Response, resumed: bool) -> _Partial:
    """What the headers of an answer tell of the whole file."""
    length = answer.headers.get("Content-Length", "")
    encoded = answer.headers.get("Content-Encoding", "identity") != "identity"
    total = int(length) if length.isdigit() and not encoded else None
    if resumed:
        found = CONTENT_RANGE.fullmatch(answer.headers.get("Content-Range", ""))
        total = int(found["total"]) if found and found["total"] != "*" else None
    return _Partial(
        url=download.url, validator=_validator(answer), total=total, checksum=_checksum(answer.headers)
    )


def _continues(answer: httpx.Response, have: int, known: _Partial) -> bool:
    """Whether a piece begins where ours ends and is of the same file."""
    found = CONTENT_RANGE.fullmatch(answer.headers.get("Content-Range", ""))
    if found is None or int(found["start"]) != have:
        return False
    same_size = known.total is None or found["total"] in ("*", str(known.total))
    etag = answer.headers.get("ETag")
    return same_size and (etag is None or not known.validator.startswith('"') or etag == known.validator)


def _validator(answer: httpx.Response) -> str:
    """A strong ETag, or a date that is old enough to be strong; empty where there is neither."""
    etag = answer.headers.get("ETag", "")
    if etag:
        return etag if etag.startswith('"') else ""
    changed, sent = (
        email.utils.parsedate_tz(answer.headers.get(name, "")) for name in ("Last-Modified", "Date")
    )
    if changed is None or sent is None:
        return ""
    old = email.utils.mktime_tz(sent) - email.utils.mktime_tz(changed) >= SAFE_SECONDS
    return answer.headers["Last-Modified"] if old else ""


def _checksum(headers: Mapping[str, str]) -> tuple[str, str] | None:
    """The strongest checksum of the whole file that the headers tell."""
    texts = {
        "sha256": re.search(r"sha-256=:([\w+/=]+):", headers.get("Repr-Digest", "")),
        "md5": re.search(r"\bmd5=([\w+/=]+)", headers.get("x-goog-hash", "")),
    }
    for algorithm, found in texts.items():
        if found is not None:
            try:
                return algorithm, base64.b64decode(found[1], validate=True).hex()
            except binascii.Error:
                continue
    return None


def _verify(download: Download, file: Path, known: _Partial | None) -> str:
    """Hold a file to what the card and the publisher tell; returns by what.

    Raises:
        DownloadError: it is another file.
    """
    size = file.stat().st_size
    if download.bytes is not None and size != download.bytes:
        raise DownloadError(
            f"{download.file_name} has {size} bytes, and its card says {download.bytes}: remove {file} if it is "
            "there, and run again; if that repeats, the publisher has another file now"
        )
    expected = ("sha256", download.sha256) if download.sha256 else known.checksum if known else None
    if expected is None:
        return "size" if download.bytes is not None or (known and known.total is not None) else "nothing"
    algorithm, digest = expected
    with file.open("rb") as stream:
        found = hashlib.file_digest(stream, lambda: hashlib.new(algorithm, usedforsecurity=False)).hexdigest()
    if found != digest:
        whose = "its card's" if download.sha256 else "the publisher's"
        raise DownloadError(
            f"{download.file_name} has another {algorithm} than {whose}: {found} instead of {digest}. Remove {file} "
            "if it is there, and run again; if that repeats, the publisher has another file now"
        )
    return algorithm


def _check_space(folder: Path, missing: int, config: FetchConfig) -> None:
    free = shutil.disk_usage(folder).free
    if missing + config.free_bytes > free:
        raise DownloadError(
            f"{missing // MEGABYTE} MB are still to come, and the disk of {folder} has {free // MEGABYTE} MB free: "
            "free some, or choose another folder with --folder. What was fetched stays"
        )


def _explained(error: OSError, download: Download, folder: Path) -> OSError:
    if isinstance(error, DownloadError):
        return error
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DownloadError(
            f"the disk of {folder} is full: free some, or choose another folder with --folder. What was fetched of "
            f"{download.file_name} stays"
        )
    return DownloadError(f"cannot write {download.file_name} to {folder}: {error.strerror or error}")


def _retry_after(answer: httpx.Response) -> float | None:
    text = answer.headers.get("Retry-After", "")
    return float(text) if text.isdigit() else None


@contextmanager
def _alone(part: Path) -> Iterator[None]:
    """Keep a second run from writing the same file; the lock goes when this process does."""
    with part.with_name(f"{part.name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DownloadError(f"another run is fetching {part.stem}: wait for it") from error
        yield


def _size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _note_path(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _read_note(part: Path) -> _Partial | None:
    """None where there is none, or it cannot be read: the file is then fetched anew."""
    try:
        noted: dict[str, Any] = json.loads(_note_path(part).read_text())
        checksum = noted.pop("checksum")
        return _Partial(**noted, checksum=tuple(checksum) if checksum else None)
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def _write_note(part: Path, known: _Partial) -> None:
    noted = {"url": known.url, "validator": known.validator, "total": known.total, "checksum": known.checksum}
    draft = _note_path(part).with_suffix(".draft")
    draft.write_text(json.dumps(noted))
    draft.replace(_note_path(part))


def _forget(part: Path) -> None:
    part.unlink(missing_ok=True)
    _note_path(part).unlink(missing_ok=True)
