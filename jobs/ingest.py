"""Bring X-rays in: a folder with `manifest.csv`, a published dataset, or the built-in synthetic ones.

Into bucket `raw` and the catalog. Runs where the folder is; only the pixels travel, sealed. With `--export` the
other way: de-identified copies of what is stored, into a new folder. It also lists the quarantine, carries out what a
reviewer decides about it, and forgets a patient.
"""

import getpass
import sys
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from cluster import progress
from cluster.settings import Settings
from data.catalog import erased_patients, quarantine_review, tables
from data.catalog.intake import SYNTHETIC, bring_in, check_folder
from data.privacy import export
from data.synthetic.generator import SyntheticConfig
from jobs.recipes import recipe
from jobs.runtime import entry, quarantine_tables


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
        check_folder(self.source, self.folder, download=self.download)


def _export(settings: Settings, arguments: Arguments) -> dict[str, Any]:
    with tables.locked(settings, erased_patients.LOCK, shared=True):
        done = export.export(
            settings,
            Path(arguments.export),
            sources=arguments.sources,
            dicom=arguments.dicom,
            progress=partial(progress.report, "export"),
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
        return quarantine_review.decide(
            settings, arguments.release, "released", by=by, label=arguments.label, note=arguments.note
        )
    if arguments.reject is not None:
        return quarantine_review.decide(settings, arguments.reject, "rejected", by=by, note=arguments.note)
    return bring_in(
        settings,
        arguments.source,
        arguments.synthetic,
        report=progress.report,
        say=lambda text: sys.stdout.write(f"{text}\n"),
        folder=arguments.folder,
        download=arguments.download,
    )


def defaults(name: str) -> dict[str, Any]:
    """Return the arguments that a recipe fills."""
    return {"synthetic": recipe(name).synthetic}


if __name__ == "__main__":
    entry.main("ingest", Arguments, work, defaults)
