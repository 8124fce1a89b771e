"""Bring X-rays in: a folder with `manifest.csv`, a published dataset, or the built-in synthetic ones.

Into bucket `raw` and the catalog. Runs where the folder is; only the pixels travel, sealed. With `--export` the
other way: de-identified copies of what is stored, into a new folder. It also lists the quarantine, carries out what a
reviewer decides about it, and forgets a patient.
"""

import getpass
import os
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from cluster import progress
from cluster.home import Home
from cluster.settings import Kaggle, Settings
from data import archives, catalog, export, forgotten, ingest, manifest, review, synthetic
from data.download import fetch
from data.manifest import Manifest
from data.sources import registry
from data.sources.card import Card
from data.synthetic import SyntheticConfig
from jobs.recipes import recipe
from jobs.runtime import entry, quarantine_tables

SYNTHETIC = "synthetic"
Progress = Callable[[int, int, str], None]


@dataclass(frozen=True, kw_only=True)
class Arguments:
    source: str = SYNTHETIC
    """A folder with `manifest.csv`, a dataset's name (docs/data.md), or "synthetic" for the built-in generator."""
    folder: str | None = None
    """Where a named dataset lies, unpacked or not; default: `downloads/NAME` in the platform's home."""
    download: bool = False
    """Whether to fetch a named dataset into its folder first."""
    recipe: str = "demo"
    """Whose synthetic settings to start from."""
    export: str = ""
    """A new folder for de-identified copies of what is stored; nothing is ingested then."""
    sources: tuple[str, ...] = ()
    """With `export`: sources of the catalog to copy; empty: all."""
    dicom: bool = False
    """With `export`: also as DICOM where the original is DICOM."""
    synthetic: SyntheticConfig = field(default_factory=SyntheticConfig)
    report: bool = False
    """List the quarantine, and do nothing else."""
    details: bool = False
    """With `report`: each image too, by its number."""
    release: int | None = None
    """Number of an image in quarantine that is to go into the next dataset."""
    reject: int | None = None
    """Number of an image in quarantine that is to stay out, whatever later checks say."""
    label: str | None = None
    """With `release`: the label that it gets in place of its source's."""
    note: str | None = None
    """With `release` or `reject`: why; name no patient."""
    forget: str | None = None
    """A patient's id as the source writes it, or "-" to read it from standard input: remove all that is theirs."""
    forget_source: str | None = None
    """With `forget`: the source whose id it is."""
    by: str | None = None
    """Who decides, for the audit table; default: the user of this shell."""

    def __post_init__(self) -> None:
        given = [self.release is not None, self.reject is not None, self.forget is not None]
        if sum([bool(self.export), self.report, *given]) > 1:
            raise ValueError(
                "--export, --report, --release, --reject and --forget exclude each other: give one"
            )


@dataclass(frozen=True, kw_only=True)
class Telling:
    """How what happens is told."""

    ingesting: Progress = lambda done, total, note: progress.report("ingest", done, total, note)
    drawing: Progress = lambda done, total, note: progress.report("draw", done, total, note)
    fetching: Progress = lambda done, total, note: progress.report("download", done, total, note)
    saying: Callable[[str], Any] = lambda text: sys.stdout.write(f"{text}\n")


def bring_in(
    settings: Settings,
    source: str,
    config: SyntheticConfig,
    telling: Telling,
    *,
    folder: str | None = None,
    download: bool = False,
) -> dict[str, Any]:
    """Ingest what a source lists, or draw a folder and ingest it; returns the fields of the job's line.

    Raises:
        JobError: `folder` or `download` is given for a source that takes neither, or the dataset is not there.
        ManifestError: there is no such source, or its folder cannot be used; nothing was stored.
        DownloadError, ArchiveError: see `data.download` and `data.archives`.
    """
    named = source in registry.SOURCES
    if not named and (folder is not None or download):
        known = ", ".join(registry.SOURCES)
        raise entry.JobError(
            f"--folder and --download go with a dataset's name; {source!r} is none of {known}"
        )
    if not (named or source == SYNTHETIC or Path(source).is_dir() or os.sep in source):
        registry.find(source)
    with tempfile.TemporaryDirectory(prefix="raydiology-ingest-") as scratch:
        if source == SYNTHETIC:
            listed = manifest.read(synthetic.generate(config, Path(scratch), progress=telling.drawing))
        elif named:
            listed = _published(source, folder, download, Path(scratch), telling)
        else:
            listed = manifest.read(archives.with_splits(Path(source), Path(scratch), telling.fetching))
        for note in listed.notes:
            telling.saying(f"{source}: {note}")
        with catalog.locked(settings, forgotten.LOCK, shared=True):
            return asdict(ingest.ingest(listed, settings, progress=telling.ingesting))


def _published(name: str, folder: str | None, download: bool, scratch: Path, telling: Telling) -> Manifest:
    """List a dataset by its name: told, fetched if that was asked for, unpacked if it is not yet."""
    adapter = registry.find(name)
    card = adapter.CARD
    for line in card.told():
        telling.saying(line)
    where = Path(folder) if folder else Home.from_env(os.environ).path / "downloads" / name
    if download:
        _fetch(card, where, telling)
    elif not where.exists():
        fetching = (
            f"; `python -m jobs.ingest --source {name} --download` fetches it" if card.downloads else ""
        )
        raise entry.JobError(f"{name} is not in {where}: give its folder with --folder{fetching}")
    for one in card.downloads:
        unpacked = where / one.file_name.removesuffix(".zip")
        if (where / one.file_name).exists() and not unpacked.exists():
            archives.unpack(where / one.file_name, unpacked, progress=telling.fetching)
    return adapter.list_images(archives.with_splits(where, scratch, telling.fetching))


def _fetch(card: Card, where: Path, telling: Telling) -> None:
    if not card.downloads:
        raise entry.JobError(
            f"nobody publishes {card.name} for download: give a folder of yours with --folder"
        )
    kaggle = Kaggle.from_env()
    for one in card.downloads:
        fetched = fetch(one, where, kaggle=kaggle, progress=telling.fetching)
        telling.saying(f"{card.name}: {fetched.path} is complete, verified by {fetched.verified_by}")


def _export(settings: Settings, arguments: Arguments) -> dict[str, Any]:
    with catalog.locked(settings, forgotten.LOCK, shared=True):
        done = export.export(
            settings,
            Path(arguments.export),
            sources=arguments.sources,
            dicom=arguments.dicom,
            progress=lambda done, total, note: progress.report("export", done, total, note),
        )
    return asdict(done)


def work(arguments: Arguments) -> dict[str, Any]:
    settings = Settings.from_env()
    by = arguments.by or getpass.getuser()
    if arguments.export:
        return _export(settings, arguments)
    if arguments.report:
        return quarantine_tables.report(settings, details=arguments.details)
    if arguments.forget is not None:
        return quarantine_tables.forget_patient(settings, arguments.forget, arguments.forget_source, by=by)
    if arguments.release is not None:
        return review.decide(
            settings, arguments.release, "released", by=by, label=arguments.label, note=arguments.note
        )
    if arguments.reject is not None:
        return review.decide(settings, arguments.reject, "rejected", by=by, note=arguments.note)
    return bring_in(
        settings,
        arguments.source,
        arguments.synthetic,
        Telling(),
        folder=arguments.folder,
        download=arguments.download,
    )


def defaults(name: str) -> dict[str, Any]:
    """Return the arguments that a recipe fills."""
    return {"synthetic": recipe(name).synthetic}


if __name__ == "__main__":
    entry.main("ingest", Arguments, work, defaults)
