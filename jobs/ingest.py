"""Bring X-rays in: a folder with `manifest.csv`, or the built-in synthetic ones, into bucket `raw` and the catalog.

Runs where the folder is; only the pixels travel, sealed.
"""

import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from cluster import progress
from cluster.settings import Settings
from data import ingest, synthetic
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


def work(arguments: Arguments) -> dict[str, Any]:
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
