"""Ask a publisher for a file, and read what the HTTP answer says of it: status, size, version, checksum.

`data.downloads.download` calls it.

Source: RFC 9110, 13.1.5 (If-Range) and 14 (range requests); RFC 9530 (Repr-Digest); Google Cloud Storage's
`x-goog-hash`, which Kaggle's files carry.
"""

import base64
import binascii
import email.utils
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import urlsplit

import httpx

from cluster.settings import Kaggle
from data.sources.dataset_card import Download

SAFE_SECONDS = 60.0
"""A date tells versions of a file apart when it is this much older than the answer (RFC 9110, 8.8.2.2)."""
LATER = (408, 425, 429, 500, 502, 503, 504)
"""Statuses after which the same request may succeed."""
CONTENT_RANGE = re.compile(r"bytes (?P<start>\d+)-\d+/(?P<total>\d+|\*)")


class DownloadError(OSError):
    """The file cannot be had; one line that says what to do. What was fetched stays, unless it was wrong."""


class BrokenOffError(Exception):
    """One attempt failed; another may succeed."""

    def __init__(self, reason: str, *, wait_s: float | None = None) -> None:
        super().__init__(reason)
        self.wait_s = wait_s


@dataclass(frozen=True, kw_only=True)
class RemoteFile:
    """The file that is being fetched, as the publisher's headers describe it; kept beside it, for the next run."""

    url: str
    validator: str
    """For `If-Range`: a strong ETag or a date that is old enough; empty: it cannot be resumed."""
    total: int | None
    checksum: tuple[str, str] | None
    """Algorithm and hexadecimal digest."""


def credentials(download: Download, kaggle: Kaggle | None) -> dict[str, str]:
    """Return the headers that authorise a download.

    Raises:
        DownloadError: the publisher asks for an account, and there is none.
    """
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


def check_status(download: Download, answer: httpx.Response) -> None:
    """Return when an answer can be read.

    Raises:
        BrokenOffError: the same request may succeed later.
        DownloadError: a person must do something, or the answer came from an address without encryption.
    """
    status, host = answer.status_code, answer.url.host
    if urlsplit(download.url).scheme == "https" and answer.url.scheme != "https":
        raise DownloadError(f"{host} leads to an address without encryption: it is not followed")
    if status in (200, 206, 416):
        return
    if status in LATER:
        raise BrokenOffError(f"{host} answers {status}", wait_s=_retry_after(answer))
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


def remote_file(download: Download, answer: httpx.Response) -> RemoteFile:
    """Read from the headers of a whole answer (200) what the file is."""
    length = answer.headers.get("Content-Length", "")
    encoded = answer.headers.get("Content-Encoding", "identity") != "identity"
    total = int(length) if length.isdigit() and not encoded else None
    return RemoteFile(
        url=download.url, validator=_validator(answer), total=total, checksum=_checksum(answer.headers)
    )


def continues(answer: httpx.Response, have: int, known: RemoteFile) -> bool:
    """Tell whether a partial answer (206) begins where `have` bytes end and is of the same file."""
    piece = CONTENT_RANGE.fullmatch(answer.headers.get("Content-Range", ""))
    if piece is None or int(piece["start"]) != have:
        return False
    same_size = known.total is None or piece["total"] in ("*", str(known.total))
    etag = answer.headers.get("ETag")
    return same_size and (etag is None or not known.validator.startswith('"') or etag == known.validator)


def _validator(answer: httpx.Response) -> str:
    """Return a strong ETag, or a date that is old enough to be strong; empty where there is neither."""
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
    """Return the strongest checksum of the whole file among the headers."""
    matches = {
        "sha256": re.search(r"sha-256=:([\w+/=]+):", headers.get("Repr-Digest", "")),
        "md5": re.search(r"\bmd5=([\w+/=]+)", headers.get("x-goog-hash", "")),
    }
    for algorithm, match in matches.items():
        if match is not None:
            with suppress(binascii.Error):
                return algorithm, base64.b64decode(match[1], validate=True).hex()
    return None


def _retry_after(answer: httpx.Response) -> float | None:
    text = answer.headers.get("Retry-After", "")
    return float(text) if text.isdigit() else None
