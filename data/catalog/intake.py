"""Brings the images of a source into bucket `raw` and the catalog: a folder, a published dataset, or drawn ones.

`jobs.ingest` and `jobs.pipeline` call `bring_in` on the machine where the folder is; only sealed pixels travel.
"""

import os
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from cluster.embedded.home import Home
from cluster.expected import ExpectedError
from cluster.progress import OnProgress
from cluster.settings import Kaggle, Settings
from data.catalog import erased_patients, ingest, tables
from data.downloads import archives
from data.downloads.download import fetch
from data.sources import manifest, registry
from data.sources.dataset_card import Card
from data.sources.manifest import Manifest
from data.synthetic import generator
from data.synthetic.generator import SyntheticConfig

SYNTHETIC = "synthetic"
"""Source name of the built-in generator."""
Report = Callable[[str, int, int, str], None]
"""Takes stage, done, total and a note, as `cluster.progress.report` does."""
Say = Callable[[str], Any]
"""Takes one line for the person who waits."""


class IntakeError(ExpectedError):
    """A source cannot be brought in; one line."""


def check_folder(source: str, folder: str | None, *, download: bool) -> None:
    """Raise ValueError where `folder` or `download` is given for a source that takes neither."""
    if (folder is not None or download) and source not in registry.SOURCES:
        known = ", ".join(registry.SOURCES)
        raise ValueError(f"--folder and --download go with a dataset's name; {source!r} is none of {known}")


def bring_in(
    settings: Settings,
    source: str,
    config: SyntheticConfig,
    *,
    report: Report,
    say: Say,
    folder: str | None = None,
    download: bool = False,
) -> dict[str, Any]:
    """Ingest what a source lists, or draw a folder and ingest it.

    Returns:
        counts, as the last line of `jobs.ingest` has them.
    Raises:
        ValueError: `folder` or `download` is given for a source that takes neither.
        IntakeError: the dataset is not in its folder, or is not published for download.
        ManifestError: there is no such source, or its folder cannot be used; nothing was stored.
        DownloadError, ArchiveError: see `data.downloads.download` and `data.downloads.archives`.
    """
    check_folder(source, folder, download=download)
    named = source in registry.SOURCES
    if not (named or source == SYNTHETIC or Path(source).is_dir() or os.sep in source):
        registry.find(source)
    fetching = partial(report, "download")
    with tempfile.TemporaryDirectory(prefix="raydiology-ingest-") as scratch:
        if source == SYNTHETIC:
            listed = manifest.read(
                generator.generate(config, Path(scratch), progress=partial(report, "draw"))
            )
        elif named:
            listed = _published(source, folder, download, Path(scratch), fetching, say)
        else:
            listed = manifest.read(archives.with_splits(Path(source), Path(scratch), fetching))
        for note in listed.notes:
            say(f"{source}: {note}")
        with tables.locked(settings, erased_patients.LOCK, shared=True):
            return asdict(ingest.ingest(listed, settings, progress=partial(report, "ingest")))


def _published(
    name: str,
    folder: str | None,
    download: bool,
    scratch: Path,
    fetching: OnProgress,
    say: Say,
) -> Manifest:
    """List a dataset by its name; fetch it where that is asked for, and unpack what is not unpacked yet."""
    adapter = registry.find(name)
    card = adapter.CARD
    for line in card.summary():
        say(line)
    where = Path(folder) if folder else Home.from_env(os.environ).path / "downloads" / name
    if download:
        _fetch(card, where, fetching, say)
    elif not where.exists():
        hint = f"; `python -m jobs.ingest --source {name} --download` fetches it" if card.downloads else ""
        raise IntakeError(f"{name} is not in {where}: give its folder with --folder{hint}")
    for archive in card.downloads:
        unpacked = where / archive.file_name.removesuffix(".zip")
        if (where / archive.file_name).exists() and not unpacked.exists():
            archives.unpack(where / archive.file_name, unpacked, progress=fetching)
    return adapter.list_images(archives.with_splits(where, scratch, fetching))


def _fetch(card: Card, where: Path, fetching: OnProgress, say: Say) -> None:
    if not card.downloads:
        raise IntakeError(f"nobody publishes {card.name} for download: give a folder of yours with --folder")
    kaggle = Kaggle.from_env()
    for archive in card.downloads:
        fetched = fetch(archive, where, kaggle=kaggle, progress=fetching)
        say(f"{card.name}: {fetched.path} is complete, verified by {fetched.verified_by}")
