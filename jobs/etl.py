"""Make a dataset version: catalog rows → checked, normalised, split by patient, written as Parquet."""

from dataclasses import dataclass, field, replace
from typing import Any

from cluster import progress
from cluster.settings import Settings
from data import etl
from data.etl import EtlConfig
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


def run_etl(settings: Settings, config: EtlConfig, *, fresh: bool) -> dict[str, Any]:
    """Returns the fields of the job's line; Ray is joined here."""
    entry.join_ray(settings.ray_address)
    made = etl.run(
        settings,
        config,
        fresh=fresh,
        git_commit=entry.git_commit(),
        progress=lambda done, total, note: progress.report("etl", done, total, note),
    )
    return {
        "dataset_version": made.version,
        "counts": made.counts,
        "quarantined": made.quarantined,
        "reused": made.reused,
        "blocks": {"all": made.blocks, "found_staged": made.blocks_found},
    }


def work(arguments: Arguments) -> dict[str, Any]:
    config = arguments.etl
    if arguments.seed is not None:
        config = replace(config, seed=arguments.seed)
    return run_etl(Settings.from_env(), config, fresh=arguments.fresh)


if __name__ == "__main__":
    entry.run(
        "etl",
        lambda: work(entry.parse(Arguments, "etl", defaults=lambda name: {"etl": recipe(name).etl})),
    )
