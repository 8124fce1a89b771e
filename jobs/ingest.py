"""Bring X-rays in: a folder with `manifest.csv`, or the built-in synthetic ones, into bucket `raw` and the catalog.

Runs where the folder is; only the pixels travel, sealed. It also lists the quarantine, carries out what a reviewer
decides about it, and forgets a patient.
"""

import getpass
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from cluster import progress
from cluster.settings import Settings
from data import catalog, forgotten, ingest, review, synthetic
from data.synthetic import SyntheticConfig
from jobs import curation, entry
from jobs.recipes import recipe

SYNTHETIC = "synthetic"
Progress = Callable[[int, int, str], None]


@dataclass(frozen=True, kw_only=True)
class Arguments:
    source: str = SYNTHETIC
    """A folder with `manifest.csv`, or "synthetic" for the built-in generator."""
    recipe: str = "demo"
    """Whose synthetic settings to start from."""
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
        asked = [self.report, self.release is not None, self.reject is not None, self.forget is not None]
        if sum(asked) > 1:
            raise ValueError("--report, --release, --reject and --forget exclude each other: give one")


def bring_in(
    settings: Settings, source: str, config: SyntheticConfig, report: Progress, drawing: Progress
) -> dict[str, Any]:
    """Ingest a folder, or draw one and ingest it; returns the fields of the job's line."""
    if source != SYNTHETIC:
        return _ingest(settings, Path(source), report)
    with tempfile.TemporaryDirectory(prefix="raydiology-synthetic-") as folder:
        return _ingest(settings, synthetic.generate(config, Path(folder), progress=drawing), report)


def _ingest(settings: Settings, folder: Path, report: Progress) -> dict[str, Any]:
    with catalog.locked(settings, forgotten.LOCK, shared=True):
        return asdict(ingest.ingest(folder, settings, progress=report))


def work(arguments: Arguments) -> dict[str, Any]:
    settings = Settings.from_env()
    by = arguments.by or getpass.getuser()
    if arguments.report:
        return curation.report(settings, details=arguments.details)
    if arguments.forget is not None:
        return curation.forget_patient(settings, arguments.forget, arguments.forget_source, by=by)
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
        lambda done, total, note: progress.report("ingest", done, total, note),
        lambda done, total, note: progress.report("draw", done, total, note),
    )


if __name__ == "__main__":
    entry.run(
        "ingest",
        lambda: work(
            entry.parse(Arguments, "ingest", defaults=lambda name: {"synthetic": recipe(name).synthetic})
        ),
    )
