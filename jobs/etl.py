"""Make a dataset version: catalog rows → checked, normalised, split by patient, written as Parquet, validated.

A version that fails a check halts the job, and no model is trained on it.
"""

import getpass
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from cluster import alerts, progress
from cluster.objects import ObjectStore
from cluster.patience import PATIENCE_S
from cluster.settings import Settings
from data.catalog import erased_patients, tables
from data.dataset import etl
from data.dataset.etl import EtlConfig
from data.dataset.versions import BUCKET
from data.validation import acceptance, dataset_report
from data.validation.acceptance import Judged
from data.validation.config import ValidationConfig, failed
from jobs.recipes import recipe
from jobs.runtime import entry


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
    validate: bool = True
    """Hold the version against the checks; without it no model is trained on it."""
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    accept: str | None = None
    """A dataset version that failed its checks: let models be trained on it all the same, and do nothing else."""
    by: str | None = None
    """Who accepts it; default: the user of this shell. Goes to the audit table."""
    note: str | None = None
    """Why; goes to the audit table, so name no patient."""


def run_etl(
    settings: Settings,
    config: EtlConfig,
    *,
    fresh: bool,
    validation: ValidationConfig | None,
    report_again: bool = False,
    report_path: Path | None = None,
) -> dict[str, Any]:
    """Make the version and, after its commit, its page; validate it. Returns the fields of the job's line; joins Ray.

    Args:
        validation: limits of the checks; None: the version is not validated.
        report_path: where to write the page as well; also that of a version which fails its checks.
    Raises:
        Halted: a check failed; an alert went to the webhook.
    """
    entry.join_ray(settings.ray_address)
    with tables.locked(settings, erased_patients.LOCK, shared=True):
        report = partial(progress.report, "etl")
        made = etl.run(settings, config, fresh=fresh, git_commit=entry.git_commit(), progress=report)
        line: dict[str, Any] = {
            "dataset_version": made.version,
            "counts": made.counts,
            "quarantined": made.quarantined,
            "reused": made.reused,
            "report": _page(settings, made.version, again=fresh or report_again, path=report_path),
            "blocks": {"all": made.blocks, "found_staged": made.blocks_found},
        }
        if validation is None:
            return line
        progress.report("etl", 0, 1, "validating")
        judged = tables.while_away(
            lambda: acceptance.judge(settings, made.version, validation, asked_sources=config.sources),
            patience_s=PATIENCE_S,
        )
        progress.report("etl", 1, 1, "validated")
    line["validation"] = judged.line()
    if not judged.accepted:
        halt(settings, judged, line)
    return line


def _page(settings: Settings, version: str, *, again: bool, path: Path | None) -> str:
    """See that the version has its page; returns the page's address."""
    progress.report("etl", 0, 1, "report of the version")
    key = tables.while_away(
        lambda: dataset_report.publish(settings, version, again=again), patience_s=PATIENCE_S
    )
    progress.report("etl", 1, 1, "report of the version")
    store = ObjectStore(settings)
    if path is not None:
        path.write_bytes(store.get(BUCKET, key))
    return store.uri(BUCKET, key)


def halt(settings: Settings, judged: Judged, line: dict[str, Any]) -> NoReturn:
    """Alert, then end the job: the verdict stands whether or not the alert arrives."""
    why = f"dataset version {judged.version} failed its checks: {judged.why()}"
    delivery = alerts.send(
        settings,
        "dataset_halted",
        why,
        {
            "dataset_version": judged.version,
            "baseline": judged.baseline,
            "failed": [{"check": check.name, "finding": check.finding} for check in failed(judged.checks)],
            "report": judged.report,
        },
    )
    line["validation"]["alert"] = str(delivery)
    raise entry.Halted(
        f"{why}. The report is {judged.report}; no model is trained on it unless somebody who has read it runs "
        f"`python -m jobs.etl --accept {judged.version} --note WHY`",
        line,
    )


def work(arguments: Arguments) -> dict[str, Any]:
    settings = Settings.from_env()
    if arguments.accept is not None:
        acceptance.accept(
            settings, arguments.accept, by=arguments.by or getpass.getuser(), note=arguments.note
        )
        return {"dataset_version": arguments.accept, "validation": {"accepted": True}}
    config = arguments.etl
    if arguments.seed is not None:
        config = replace(config, seed=arguments.seed)
    return run_etl(
        settings,
        config,
        fresh=arguments.fresh,
        validation=arguments.validation if arguments.validate else None,
        report_again=arguments.report,
        report_path=None if arguments.report_path is None else Path(arguments.report_path),
    )


def defaults(name: str) -> dict[str, Any]:
    """Return the arguments that a recipe fills."""
    return {"etl": recipe(name).etl, "validation": recipe(name).validation}


if __name__ == "__main__":
    entry.main("etl", Arguments, work, defaults)
