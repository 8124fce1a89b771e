"""Hold a model version against its test split and the gates; exit 3 when a gate halts it."""

from dataclasses import dataclass, field
from functools import partial
from typing import Any

from cluster import progress
from cluster.settings import Settings
from jobs.runtime import entry
from jobs.runtime.inputs import model_version
from train.evaluation import evaluate as evaluation
from train.evaluation.gates import Gates


@dataclass(frozen=True, kw_only=True)
class Arguments:
    model_version: str | None = None
    """Version of `xray-vit`; default: the newest."""
    gates: Gates = field(default_factory=Gates)


def run_evaluate(settings: Settings, model_version: str, gates: Gates) -> dict[str, Any]:
    """Evaluate a version; returns the fields of the job's line.

    Raises:
        Halted: a gate failed; the registry has no new alias.
    """
    report_step = partial(progress.report, "evaluate")
    evaluated = evaluation.evaluate(
        settings, model_version, gates, settings.environment, progress=report_step
    )
    report = {
        "model_version": model_version,
        "metrics": evaluated.report.as_dict(),
        "gates": evaluated.gates,
        "why": {detail.name: detail.why for detail in evaluated.details},
        "verdict": evaluated.verdict,
        "alias": evaluated.alias,
    }
    if evaluated.verdict != "pass":
        reasons = "; ".join(detail.why for detail in evaluated.details if detail.halts)
        raise entry.Halted(f"version {model_version} may not be served: {reasons}", report)
    return report


def work(arguments: Arguments) -> dict[str, Any]:
    settings = Settings.from_env()
    version = model_version(settings, arguments.model_version)
    return run_evaluate(settings, version, arguments.gates)


if __name__ == "__main__":
    entry.main("evaluate", Arguments, work)
