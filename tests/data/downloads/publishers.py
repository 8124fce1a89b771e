"""A publisher on loopback that serves a file as it is told to."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from data.downloads.download import FetchConfig, Fetched
from data.downloads.publisher import DownloadError

BODY = bytes(range(256)) * 4096  # a mebibyte


PAGE = "https://example.org/datasets/owner/set"


QUICK = FetchConfig(tries=3, first_wait_s=0.01, longest_wait_s=0.05, timeout_s=5, free_bytes=0)


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


def refusal(get: Callable[..., Fetched], **known: Any) -> str:
    with pytest.raises(DownloadError) as caught:
        get(**known)
    message = str(caught.value)
    assert "\n" not in message
    assert "s3cret" not in message
    return message
