"""Fetch a publisher's archive over HTTPS: resumed, verified, and visible under its name only when it is whole.

`jobs.ingest --download` calls `fetch` with what a card names. A transfer that breaks is resumed where it stopped as
long as the publisher still has the same file (`Range` with `If-Range`); else it starts anew. Knows no dataset.

Written on httpx: urllib3's `Retry`, boto3 and fsspec repeat a request, but none of them resumes a body with `If-Range`,
counts attempts anew after progress, or keeps the partial file for the next run.
"""

import errno
import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from cluster.progress import OnProgress, silent
from cluster.settings import Kaggle
from data.downloads.publisher import (
    BrokenOffError,
    DownloadError,
    RemoteFile,
    check_status,
    continues,
    credentials,
    remote_file,
)
from data.sources.dataset_card import Download

MEGABYTE = 10**6
REPORT_EVERY_S = 1.0


@dataclass(frozen=True, kw_only=True)
class FetchConfig:
    tries: int = 8
    """Attempts in a row without a new byte; progress starts the count anew."""
    first_wait_s: float = 1.0
    """Doubled from attempt to attempt."""
    longest_wait_s: float = 60.0
    """Also the bound of what a publisher asks for with `Retry-After`."""
    timeout_s: float = 60.0
    """For an answer to begin, and between two pieces of it."""
    free_bytes: int = 2**30
    """Left free on the disk."""


@dataclass(frozen=True, kw_only=True)
class Fetched:
    path: Path
    verified_by: str
    """`sha256`, `md5`, `size` or `nothing`: the strongest check that the card and the publisher allow."""


@dataclass(frozen=True, kw_only=True)
class _Transfer:
    """One file on its way to the disk."""

    client: httpx.Client
    download: Download
    part: Path
    """The bytes so far; beside it lies a JSON note with the `RemoteFile` that they are of."""
    headers: Mapping[str, str]
    config: FetchConfig
    progress: OnProgress

    @property
    def size(self) -> int:
        return self.part.stat().st_size if self.part.exists() else 0

    def report(self, done: int, total: int, note: str) -> None:
        self.progress(done // MEGABYTE, total // MEGABYTE, f"megabytes{note}")


def fetch(
    download: Download,
    folder: Path,
    *,
    kaggle: Kaggle | None = None,
    config: FetchConfig | None = None,
    progress: OnProgress = silent,
) -> Fetched:
    """Fetch one file into a folder, unless it is there.

    Raises:
        DownloadError: credentials are missing or refused, conditions not accepted, the disk is full, the publisher
            does not answer, or the file is not the one that it should be.
    """
    config = config or FetchConfig()
    target = folder / download.file_name
    if target.exists():
        return Fetched(path=target, verified_by=_verify(download, target, None))
    headers = credentials(download, kaggle)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        part = target.with_name(f"{target.name}.part")
        with _locked(part), httpx.Client(timeout=config.timeout_s, follow_redirects=True) as client:
            transfer = _Transfer(
                client=client, download=download, part=part, headers=headers, config=config, progress=progress
            )
            remote = _fetch_all(transfer)
            try:
                verified_by = _verify(download, part, remote)
            except DownloadError:
                _discard(part)
                raise
            part.rename(target)
            _note_path(part).unlink(missing_ok=True)
    except OSError as error:
        raise _download_error(error, download, folder) from error
    return Fetched(path=target, verified_by=verified_by)


def _fetch_all(transfer: _Transfer) -> RemoteFile:
    """Request until the part file is complete."""
    config, failures = transfer.config, 0
    while True:
        before = transfer.size
        try:
            return _fetch_rest(transfer)
        except (BrokenOffError, httpx.TransportError) as error:
            size = transfer.size
            failures = 1 if size > before else failures + 1
            if failures >= config.tries:
                raise DownloadError(
                    f"{urlsplit(transfer.download.url).hostname} broke off {failures} times in a row, the last time "
                    f"with: {str(error) or type(error).__name__}. What was fetched stays ({size // MEGABYTE} MB): "
                    "run the same command again later"
                ) from error
            wanted_s = error.wait_s if isinstance(error, BrokenOffError) else None
            wait_s = min(wanted_s or config.first_wait_s * 2 ** (failures - 1), config.longest_wait_s)
            known = _read_note(transfer.part)
            total = (known.total if known else None) or size
            transfer.report(size, total, f"; broken off, again in {wait_s:.0f} s")
            time.sleep(wait_s)


def _fetch_rest(transfer: _Transfer) -> RemoteFile:
    """Request all that is missing, once."""
    download, part = transfer.download, transfer.part
    have, known = transfer.size, _read_note(part)
    if known is None or known.url != download.url or not known.validator:
        have, known = 0, None
    if known and have and known.total == have:
        return known
    headers = {**transfer.headers, "Accept-Encoding": "identity"}
    if known and have:
        headers |= {"Range": f"bytes={have}-", "If-Range": known.validator}
    with transfer.client.stream("GET", download.url, headers=headers) as answer:
        check_status(download, answer)
        if answer.status_code == 416:
            _discard(part)
            raise BrokenOffError("the publisher has another file now")
        if answer.status_code != 206:
            return _receive(transfer, answer, 0, remote_file(download, answer))
        if known is None or not continues(answer, have, known):
            _discard(part)
            raise BrokenOffError("the publisher sent another piece than was asked for")
        return _receive(transfer, answer, have, known)


def _receive(transfer: _Transfer, answer: httpx.Response, start: int, remote: RemoteFile) -> RemoteFile:
    """Write an answer's body into the part file from byte `start` on."""
    part, total = transfer.part, remote.total or 0
    _check_space(part.parent, total - start, transfer.config)
    with part.open("r+b" if start else "wb") as file:
        _write_note(part, remote)  # after an old part was emptied: its bytes never get the new file's note
        file.seek(start)
        done, reported_at = start, 0.0
        for chunk in answer.iter_raw():
            file.write(chunk)
            done += len(chunk)
            if time.monotonic() - reported_at >= REPORT_EVERY_S or done == remote.total:
                reported_at = time.monotonic()
                transfer.report(done, total, f" of {transfer.download.file_name}")
        file.flush()
        os.fsync(file.fileno())
    if remote.total is not None and done != remote.total:
        raise BrokenOffError(f"{done} bytes came, and {remote.total} were told")
    return remote


def _verify(download: Download, file: Path, remote: RemoteFile | None) -> str:
    """Compare a file with what the card and the publisher say of it, and return the check that was made.

    Raises:
        DownloadError: it is another file.
    """
    repeat = (
        f"emove {file} if it is there, and run again; if that repeats, the publisher has another file now"
    )
    size = file.stat().st_size
    if download.bytes is not None and size != download.bytes:
        raise DownloadError(
            f"{download.file_name} has {size} bytes, and its card says {download.bytes}: r{repeat}"
        )
    expected = ("sha256", download.sha256) if download.sha256 else remote.checksum if remote else None
    if expected is None:
        return "size" if download.bytes is not None or (remote and remote.total is not None) else "nothing"
    algorithm, digest = expected
    with file.open("rb") as stream:
        actual = hashlib.file_digest(
            stream, lambda: hashlib.new(algorithm, usedforsecurity=False)
        ).hexdigest()
    if actual != digest:
        whose = "its card's" if download.sha256 else "the publisher's"
        raise DownloadError(
            f"{download.file_name} has another {algorithm} than {whose}: {actual} instead of {digest}. R{repeat}"
        )
    return algorithm


def _check_space(folder: Path, missing: int, config: FetchConfig) -> None:
    free = shutil.disk_usage(folder).free
    if missing + config.free_bytes > free:
        raise DownloadError(
            f"{missing // MEGABYTE} MB are still to come, and the disk of {folder} has {free // MEGABYTE} MB free: "
            "free some, or choose another folder with --folder. What was fetched stays"
        )


def _download_error(error: OSError, download: Download, folder: Path) -> OSError:
    if isinstance(error, DownloadError):
        return error
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DownloadError(
            f"the disk of {folder} is full: free some, or choose another folder with --folder. What was fetched of "
            f"{download.file_name} stays"
        )
    return DownloadError(f"cannot write {download.file_name} to {folder}: {error.strerror or error}")


@contextmanager
def _locked(part: Path) -> Iterator[None]:
    """Keep a second run from writing the same file; the kernel frees the lock when this process ends."""
    with part.with_name(f"{part.name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DownloadError(f"another run is fetching {part.stem}: wait for it") from error
        yield


def _note_path(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _read_note(part: Path) -> RemoteFile | None:
    """Return the note beside a part file; None, which fetches the file anew, where there is no readable one."""
    try:
        values: dict[str, Any] = json.loads(_note_path(part).read_text())
        checksum = values.pop("checksum")
        return RemoteFile(**values, checksum=tuple(checksum) if checksum else None)
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def _write_note(part: Path, remote: RemoteFile) -> None:
    draft = _note_path(part).with_suffix(".draft")
    draft.write_text(json.dumps(asdict(remote)))
    draft.replace(_note_path(part))


def _discard(part: Path) -> None:
    part.unlink(missing_ok=True)
    _note_path(part).unlink(missing_ok=True)
