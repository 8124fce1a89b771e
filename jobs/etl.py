"""Make a dataset version: catalog rows → checked, normalised, split by patient, written as Parquet."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from cluster import progress
from cluster.objects import ObjectStore
from cluster.settings import Settings
from data import etl, report
from data.etl import EtlConfig
from data.versions import BUCKET
from jobs import entry
from jobs.recipes import recipe


@dataclass(frozen=True, kw_only=True)
class Arguments:
    recipe: str = "demo"
    """Whose settings to start from."""
    etl: EtlConfig = field(default_factory=EtlConfig)
    fresh: bool = False
    """Compute again even where the version exists."""
    seed: int | None = None
    """Overrides `etl.seed`."""
    report: bool = False
    """Make the version's HTML page again even where it exists."""
    report_path: str | None = None
    """A local file to write the page to as well."""


def run_etl(
    settings: Settings, config: EtlConfig, *, fresh: bool, report_again: bool = False
) -> dict[str, Any]:
    """Make the version and, after its commit, its page; returns the fields of the job's line. Joins Ray."""
    entry.join_ray(settings.ray_address)
    made = etl.run(
        settings,
        config,
        fresh=fresh,
        git_commit=entry.git_commit(),
        progress=lambda done, total, note: progress.report("etl", done, total, note),
    )
    progress.report("etl", 0, 1, "report of the version")
    key = report.publish(settings, made.version, again=fresh or report_again)
    progress.report("etl", 1, 1, "report of the version")
    return {
        "dataset_version": made.version,
        "counts": made.counts,
        "quarantined": made.quarantined,
        "reused": made.reused,
        "report": ObjectStore(settings).uri(BUCKET, key),
        "blocks": {"all": made.blocks, "found_staged": made.blocks_found},
    }


def work(arguments: Arguments) -> dict[str, Any]:
    config = arguments.etl
    if arguments.seed is not None:
        config = replace(config, seed=arguments.seed)
    settings = Settings.from_env()
    made = run_etl(settings, config, fresh=arguments.fresh, report_again=arguments.report)
    if arguments.report_path is not None:
        page = ObjectStore(settings).get(BUCKET, f"{made['dataset_version']}/{report.NAME}")
        Path(arguments.report_path).write_bytes(page)
    return made


if __name__ == "__main__":
    entry.run(
        "etl",
        lambda: work(entry.parse(Arguments, "etl", defaults=lambda name: {"etl": recipe(name).etl})),
    )
