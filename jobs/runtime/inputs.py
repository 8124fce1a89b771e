"""The versions that a job works on, and whether it may."""

from cluster.releases.registry import VIT, Registry
from cluster.settings import Settings
from data.validation import acceptance
from jobs.runtime import entry


def model_version(settings: Settings, wanted: str | None) -> str:
    """Return the version of `xray-vit` that is wanted, or else the newest.

    Raises:
        JobError: there is no version yet.
    """
    version = wanted or Registry(settings).newest(VIT)
    if version is None:
        raise entry.JobError(f"{VIT} has no version yet; run `python -m jobs.train` first")
    return version


def require_accepted(settings: Settings, dataset_version: str) -> None:
    """Refuse a dataset version that models may not be trained on.

    Raises:
        Halted: the version failed its checks.
        JobError: it was never validated.
    """
    verdict = acceptance.accepted(settings, dataset_version)
    if verdict is None:
        raise entry.JobError(
            f"dataset version {dataset_version} was not validated: run `python -m jobs.etl`, which does it, first"
        )
    if not verdict:
        raise entry.Halted(
            f"dataset version {dataset_version} failed its checks and is not trained on: read "
            f"{acceptance.report_address(settings, dataset_version)}, then mend the data or run "
            f"`python -m jobs.etl --accept {dataset_version} --note WHY`",
            {"dataset_version": dataset_version},
        )
