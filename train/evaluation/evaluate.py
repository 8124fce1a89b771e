"""Evaluate a registered model version on the test split: figures, gates, verdict, alias.

Reads the release bundle (verified) as serving does, logs to the run that trained it, and leaves a row in the audit
table. Repeating it gives the same figures, and the alias follows the same rule.
"""

import json
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import psycopg

from cluster.database import audit, connect
from cluster.expected import first_line
from cluster.objects import ObjectStore
from cluster.progress import OnProgress, silent
from cluster.releases.bundles import BundleError
from cluster.releases.registry import VIT, Registry
from cluster.settings import Settings
from data.dataset.versions import manifest
from train.evaluation import gates as rules
from train.evaluation import model_card, suite
from train.evaluation.gates import GateResult, Gates
from train.evaluation.suite import EvaluateError, EvaluationResults, Version
from train.metrics.classification import CLASS_FIGURES
from train.metrics.gate_inputs import Comparison
from train.metrics.plots import figures
from train.metrics.report import Report, as_csv
from train.tracking import mlflow_runs, provenance

CHAMPION, CHALLENGER = "champion", "challenger"
FOLDER = "evaluation"
"""Folder in the run's artifacts."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    model_version: str
    dataset_version: str
    metrics: dict[str, float]
    gates: dict[str, str]
    """Name of the gate -> pass, fail or not evaluable."""
    details: list[GateResult]
    report: Report
    verdict: str
    """pass or fail; fail halts the pipeline."""
    alias: str | None
    """The version's alias now."""


def evaluate(
    settings: Settings,
    model_version: str,
    gates: Gates,
    environment: str,
    *,
    progress: OnProgress = silent,
) -> Evaluation:
    """Measure, judge, record, and set the alias that the verdict earns.

    Raises:
        EvaluateError, RegistryError, BundleError, VersionError, GateError: one line each.
    """
    store, registry = ObjectStore(settings), Registry(settings)
    version = suite.load(store, model_version, registry.bundle_key(VIT, model_version))
    champion = _champion(store, registry, model_version)
    examined = suite.run_suite(settings, version, champion, gates, progress)
    results = rules.judge(examined.measured, gates, environment)
    judged = Evaluation(
        model_version=model_version,
        dataset_version=version.card.dataset_version,
        metrics=examined.report.scalars(),
        gates={result.name: result.verdict for result in results},
        details=results,
        report=examined.report,
        verdict=rules.overall(results),
        alias=None,
    )
    described = manifest(store, judged.dataset_version)
    _log(settings, judged, version, examined, described, gates, environment)
    _tag(registry, judged, environment)
    evaluation = replace(judged, alias=_alias(registry, model_version, judged.verdict))
    _audit(settings, evaluation, gates, environment)
    return evaluation


def _champion(store: ObjectStore, registry: Registry, model_version: str) -> Version | Comparison:
    """Load the champion, or say why there is no comparison."""
    number = registry.version_by_alias(VIT, CHAMPION)
    if number is None or number == model_version:
        return Comparison(champion=None)
    try:
        return suite.load(store, number, registry.bundle_key(VIT, number))
    except (EvaluateError, BundleError) as error:
        return Comparison(champion=number, why_not=f"champion {number} cannot be asked: {error}")


def _alias(registry: Registry, version: str, verdict: str) -> str | None:
    """Set and return the alias: champion if there is none, else challenger; none for a version that failed.

    A champion that fails when it is judged again keeps its alias: taking it off traffic is a rollout's decision.
    """
    champion = registry.version_by_alias(VIT, CHAMPION)
    if champion == version:
        return CHAMPION
    if verdict == "pass":
        alias = CHAMPION if champion is None else CHALLENGER
        registry.set_alias(VIT, alias, version)
        return alias
    if registry.version_by_alias(VIT, CHALLENGER) == version:
        registry.remove_alias(VIT, CHALLENGER)
    return None


def _log(
    settings: Settings,
    evaluation: Evaluation,
    version: Version,
    examined: EvaluationResults,
    described: Mapping[str, Any],
    gates: Gates,
    environment: str,
) -> None:
    """Log figures, tables, pictures and the human-readable card to the run that trained the model."""
    mlflow = mlflow_runs.client(settings.mlflow_tracking_uri)
    run_id, report = version.card.run_id, evaluation.report
    provenance.log_dataset(mlflow, run_id, settings, described, "test")
    mlflow_runs.log_figures(
        mlflow, run_id, {f"test_{name}": value for name, value in _logged(evaluation).items()}
    )
    details = {
        "environment": environment,
        "verdict": evaluation.verdict,
        "settings": asdict(gates),
        "gates": [result.as_dict() for result in evaluation.details],
        "test": report.as_dict(),
        "probes": asdict(examined.probes),
    }
    card = model_card.card(
        model_version=evaluation.model_version,
        bundle_card=version.card,
        dataset=described,
        report=report,
        gates=evaluation.details,
        verdict=evaluation.verdict,
        environment=environment,
    )
    title = f"{VIT} {evaluation.model_version}, accuracy {report.accuracy.value:.3f}"
    texts = {
        "evaluation.json": json.dumps(details, indent=1),
        "card.md": card,
        "gates.csv": as_csv([result.as_dict() for result in evaluation.details]),
        **report.tables(),
    }
    files = {name: text.encode() for name, text in texts.items()} | figures(
        report, version.card.classes, title
    )
    with tempfile.TemporaryDirectory() as folder:
        for name, blob in files.items():
            (Path(folder) / name).write_bytes(blob)
        mlflow_runs.log_files(mlflow, run_id, [Path(folder) / name for name in files], FOLDER)


def _logged(evaluation: Evaluation) -> dict[str, float]:
    """Return all single-number figures: overall, by class, and what each gate measured."""
    values = dict(evaluation.metrics)
    for class_result in evaluation.report.classes:
        for name in CLASS_FIGURES:
            if (estimate := getattr(class_result, name)) is not None:
                values[f"{name}_{class_result.label}"] = estimate.value
    for gate in evaluation.details:
        if gate.measured is not None and gate.family in ("champion", "subgroup", "shortcut", "behaviour"):
            values[gate.name] = gate.measured
    return values


def _tag(registry: Registry, evaluation: Evaluation, environment: str) -> None:
    """Write the verdict as tags of the version, where deployments look for it."""
    halting = [result.name for result in evaluation.details if result.halts]
    registry.set_tags(
        VIT,
        evaluation.model_version,
        {
            "verdict": evaluation.verdict,
            "verdict_environment": environment,
            "halted_by": ", ".join(halting),
            "dataset_version": evaluation.dataset_version,
            "test_accuracy": f"{evaluation.report.accuracy.value:.4f}",
        },
    )


def _audit(settings: Settings, evaluation: Evaluation, gates: Gates, environment: str) -> None:
    detail = {
        "environment": environment,
        "verdict": evaluation.verdict,
        "alias": evaluation.alias,
        "dataset_version": evaluation.dataset_version,
        "gates": evaluation.gates,
        "settings": asdict(gates),
        "accuracy": evaluation.report.accuracy.as_dict(),
    }
    try:
        with connect(settings.database_url) as connection:
            subject = f"{VIT}/{evaluation.model_version}"
            audit(connection, actor="evaluate", action="judge", subject=subject, detail=detail)
    except psycopg.OperationalError as error:
        raise EvaluateError(
            f"the verdict could not be written to the audit table: {first_line(error)}. "
            "`make status` shows whether PostgreSQL runs"
        ) from error
