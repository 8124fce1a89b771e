"""Bring X-rays in: a folder with `manifest.csv`, or the built-in synthetic ones, into bucket `raw` and the catalog.

Runs where the folder is; only the pixels travel, sealed. With `--export` the other way: de-identified copies of
what is stored, into a new folder.
"""

import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from cluster import progress
from cluster.settings import Settings
from data import export, ingest, synthetic
from data.synthetic import SyntheticConfig
from jobs import entry
from jobs.recipes import recipe

SYNTHETIC = "synthetic"
Progress = Callable[[int, int, str], None]


@dataclass(frozen=True, kw_only=True)
class Arguments:
    source: str = SYNTHETIC
    """A folder with `manifest.csv`, or "synthetic" for the built-in generator."""
    recipe: str = "demo"
    """Whose synthetic settings to start from."""
    export: str = ""
    """A new folder for de-identified copies of what is stored; nothing is ingested then."""
    sources: tuple[str, ...] = ()
    """With `export`: sources of the catalog to copy; empty: all."""
    dicom: bool = False
    """With `export`: also as DICOM where the original is DICOM."""
    synthetic: SyntheticConfig = field(default_factory=SyntheticConfig)


def bring_in(
    settings: Settings, source: str, config: SyntheticConfig, report: Progress, drawing: Progress
) -> dict[str, Any]:
    """Ingest a folder, or draw one and ingest it; returns the fields of the job's line."""
    if source != SYNTHETIC:
        return _ingest(settings, Path(source), report)
    with tempfile.TemporaryDirectory(prefix="raydiology-synthetic-") as folder:
        return _ingest(settings, synthetic.generate(config, Path(folder), progress=drawing), report)


def _ingest(settings: Settings, folder: Path, report: Progress) -> dict[str, Any]:
    return asdict(ingest.ingest(folder, settings, progress=report))


def _export(settings: Settings, arguments: Arguments) -> dict[str, Any]:
    done = export.export(
        settings,
        Path(arguments.export),
        sources=arguments.sources,
        dicom=arguments.dicom,
        progress=lambda done, total, note: progress.report("export", done, total, note),
    )
    return asdict(done)


def work(arguments: Arguments) -> dict[str, Any]:
    if arguments.export:
        return _export(Settings.from_env(), arguments)
    return bring_in(
        Settings.from_env(),
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
