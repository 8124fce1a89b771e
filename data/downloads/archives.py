"""Unpack zip files of unknown origin: whole or not at all, inside the folder, never more than fits.

`data.downloads.download`'s archives and zipped splits (`train.zip`, `val.zip`, `test.zip`) come here before an
adapter lists them. Knows no dataset. Written on `zipfile`, because `extractall` and `shutil.unpack_archive` bound
neither size nor ratio and leave half an archive behind when they fail.
"""

import os
import shutil
import stat
import tempfile
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from cluster.progress import OnProgress, silent

SPLITS = ("train", "val", "valid", "validation", "test")
CHUNK_BYTES = 2**20
MEGABYTE = 10**6
COPIED_BYTES = 2**26
"""A file beside zipped splits (a sheet, data.yaml, a manifest) that is larger is none."""


class ArchiveError(ValueError):
    """A zip file is damaged, or made to do harm, or does not fit on the disk; one line. Nothing is left behind."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What an archive may unpack to; the largest of the known datasets has 85,318 files and 1.2 times its size."""

    files: int = 2_000_000
    file_bytes: int = 2**30
    """Of one file: a film of 64 megapixels at 16 bits has an eighth of that."""
    ratio: float = 50.0
    """Unpacked bytes for each byte of the archive; X-rays reach 10 (uncompressed DICOM with much air)."""
    free_bytes: int = 2**30
    """Left free on the disk."""


def unpack(
    archive: Path, folder: Path, *, limits: Limits | None = None, progress: OnProgress = silent
) -> Path:
    """Unpack one zip file into a new folder, which appears when it is complete.

    The directory of the archive is judged first; sizes are checked again while unpacking.

    Raises:
        ArchiveError: with the archive's name and what is wrong with it.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        with zipfile.ZipFile(archive) as package:
            members = _judged(archive, package, limits or Limits(), shutil.disk_usage(draft).free)
            total = sum(member.file_size for member in members)
            done = 0
            for number, member in enumerate(members):
                _write(package, member, draft)
                done += member.file_size
                if number % 256 == 0 or number == len(members) - 1:
                    progress(done // MEGABYTE, total // MEGABYTE, f"megabytes of {archive.name} unpacked")
        draft.rename(folder)
    except (
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        NotImplementedError,
        RuntimeError,
        FileExistsError,
    ) as error:
        what = " ".join(str(error).split()) or type(error).__name__
        raise ArchiveError(f"{archive} is damaged or no zip file ({what}): fetch it again") from error
    except OSError as error:
        raise ArchiveError(f"cannot unpack {archive}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return folder


def with_splits(folder: Path, scratch: Path, progress: OnProgress = silent) -> Path:
    """Return the folder, or a copy under `scratch` in which its zipped splits are folders.

    Small files beside the zips (sheets, data.yaml, a manifest) come along.

    Raises:
        ArchiveError: see `unpack`.
    """
    if not folder.is_dir():
        return folder
    zipped = sorted(
        file for file in folder.iterdir() if file.suffix.lower() == ".zip" and file.stem.lower() in SPLITS
    )
    if not zipped:
        return folder
    copy = scratch / "splits"
    copy.mkdir()
    for archive in zipped:
        unpacked = unpack(archive, scratch / f"one-{archive.stem}", progress=progress)
        _only_folder(unpacked, archive.stem).rename(copy / archive.stem)
    for file in folder.iterdir():
        if file.is_file() and file not in zipped and file.stat().st_size <= COPIED_BYTES:
            shutil.copyfile(file, copy / file.name)
    return copy


def _only_folder(unpacked: Path, name: str) -> Path:
    """Return `train/` inside what was `train.zip`, where that is how it was packed."""
    inside = [entry for entry in unpacked.iterdir() if not entry.name.startswith(("__MACOSX", "."))]
    nested = len(inside) == 1 and inside[0].is_dir() and inside[0].name.lower() == name.lower()
    return inside[0] if nested else unpacked


def _judged(archive: Path, package: zipfile.ZipFile, limits: Limits, free: int) -> list[zipfile.ZipInfo]:
    """Return the files to write, if all of the archive is harmless."""
    entries = package.infolist()
    packed = max(1, archive.stat().st_size)
    total = sum(entry.file_size for entry in entries)
    if len(entries) > limits.files:
        raise ArchiveError(f"{archive} lists {len(entries)} files, and {limits.files} is the most")
    if total > limits.ratio * packed:
        raise ArchiveError(
            f"{archive} would unpack to {total} bytes, {total // packed} times its size: no set of X-rays does"
        )
    if total + limits.free_bytes > free:
        raise ArchiveError(
            f"{archive} unpacks to {total // MEGABYTE} MB, and the disk has {free // MEGABYTE} MB free: free some, "
            "or choose another folder (TMPDIR says where zipped splits are unpacked)"
        )
    seen: set[str] = set()
    for entry in entries:
        name = entry.filename.rstrip("/")
        if problem := _problem(entry, name, limits) or ("is listed twice" if name in seen else None):
            raise ArchiveError(f"{archive}: the entry {name[:80]!r} {problem}. Nothing was unpacked")
        seen.add(name)
    return [entry for entry in entries if not entry.is_dir()]


def _problem(entry: zipfile.ZipInfo, name: str, limits: Limits) -> str | None:
    """Return why an entry must not be written, None when it may."""
    parts = PurePosixPath(name).parts
    mode = entry.external_attr >> 16
    if not name or name.startswith("/") or ".." in parts or "\\" in name or ":" in name.partition("/")[0]:
        return "leads out of the folder"
    if any(ord(character) < 32 for character in name) or any(len(part.encode()) > 255 for part in parts):
        return "has no usable name"
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "is a link or a device"
    if entry.flag_bits & 0x1:
        return "is encrypted"
    if entry.file_size > limits.file_bytes:
        return f"has {entry.file_size} bytes, and {limits.file_bytes} is the most"
    return None


def _write(package: zipfile.ZipFile, entry: zipfile.ZipInfo, folder: Path) -> None:
    """Unpack one file; it is new, of the size that the directory says, and readable by its owner only."""
    target = folder / entry.filename
    target.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    left = entry.file_size
    with os.fdopen(descriptor, "wb") as file, package.open(entry) as stream:
        while chunk := stream.read(CHUNK_BYTES):
            left -= len(chunk)
            if left < 0:
                raise zipfile.BadZipFile(f"{entry.filename!r} is longer than its entry says")
            file.write(chunk)
    if left:
        raise zipfile.BadZipFile(f"{entry.filename!r} is shorter than its entry says")
