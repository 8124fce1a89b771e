"""Judge a registered model version on the test split: figures, gates, verdict, alias.

Reads the release bundle (verified) as serving does, logs to the run that trained it, and leaves a row in the
audit table. May be repeated: the figures are the same, and the alias follows the same rule.
"""

import json
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import psycopg
from psycopg.types.json import Jsonb

from cluster import bundles
from cluster.database import connect
from cluster.objects import ObjectStore
from cluster.registry import VIT, Registry
from cluster.settings import Settings
from data.preprocess import PREPROCESS_VERSION, PixelConfig
from data.versions import SplitTable, load_split
from train import gates as rules
from train import report, tracking
from train.gates import GateResult, Gates
from train.inference import logits, rebuild
from train.release import CARD, WEIGHTS
from train.report import Report

CHAMPION, CHALLENGER = "champion", "challenger"


class EvaluateError(ValueError):
    """The model version cannot be judged; the message says why in one line."""


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
    """The alias that the version has now."""


def evaluate(
    settings: Settings,
    model_version: str,
    gates: Gates,
    environment: str,
    *,
    progress: Callable[[int, int, str], None] | None = None,
) -> Evaluation:
    """Measure, judge, record, and give the alias that the verdict earns.

    Raises:
        EvaluateError, RegistryError, BundleError, VersionError, GateError: one line each.
    """
    store, registry = ObjectStore(settings), Registry(settings)
    card, weights = _fetch(store, registry.bundle_key(VIT, model_version))
    table = load_split(store, card["dataset_version"], "test")
    measured = _measure(card, weights, table, progress)
    results = rules.judge(measured.measured(), gates, environment)
    verdict = rules.overall(results)
    judged = Evaluation(
        model_version=model_version,
        dataset_version=card["dataset_version"],
        metrics=measured.scalars(),
        gates={one.name: one.verdict for one in results},
        details=results,
        report=measured,
        verdict=verdict,
        alias=None,
    )
    _log(settings, registry, judged, card, gates, environment)
    evaluation = replace(judged, alias=_alias(registry, model_version, verdict))
    _audit(settings, evaluation, gates, environment)
    return evaluation


def _fetch(store: ObjectStore, bundle_key: str) -> tuple[dict[str, Any], bytes]:
    with tempfile.TemporaryDirectory() as folder:
        files = bundles.fetch(store, bundle_key, Path(folder), [CARD, WEIGHTS])
        card: dict[str, Any] = json.loads(files[CARD].read_bytes())
        weights = files[WEIGHTS].read_bytes()
    if card["preprocess_version"] != PREPROCESS_VERSION:
        raise EvaluateError(
            f"the model was trained on preprocessing {card['preprocess_version']}, this code has "
            f"{PREPROCESS_VERSION}: evaluate it with the code of commit {card['git_commit']}"
        )
    return card, weights


def _measure(
    card: dict[str, Any],
    weights: bytes,
    table: SplitTable,
    progress: Callable[[int, int, str], None] | None,
) -> Report:
    if not len(table):
        raise EvaluateError(f"dataset version {card['dataset_version']} has no test image: add patients")
    model = rebuild(card["architecture"], weights)
    return report.build(
        logits(model, table.pixels_NHW, PixelConfig(**card["pixels"]), progress),
        table.labels_N,
        groups=table.groups,
        sources=table.sources,
        names=card["classes"],
        calibration=card["calibration"],
    )


def _alias(registry: Registry, version: str, verdict: str) -> str | None:
    """Champion when there is none, challenger beside another champion, none for a version that failed.

    A champion that fails when it is judged again stays: taking it off traffic is a rollout's decision.
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
    registry: Registry,
    evaluation: Evaluation,
    card: dict[str, Any],
    gates: Gates,
    environment: str,
) -> None:
    """Figures, table and picture to the run that trained the model; the verdict to the version's tags."""
    mlflow = tracking.client(settings.mlflow_tracking_uri)
    run_id = card["run_id"]
    tracking.log_figures(
        mlflow, run_id, {f"test_{name}": value for name, value in evaluation.metrics.items()}
    )
    details = {
        "environment": environment,
        "verdict": evaluation.verdict,
        "settings": asdict(gates),
        "gates": [one.as_dict() for one in evaluation.details],
        "test": evaluation.report.as_dict(),
    }
    title = f"xray-vit {evaluation.model_version}, accuracy {evaluation.report.accuracy.value:.3f}"
    figure = report.confusion_figure(evaluation.report.confusion_KK, card["classes"], title)
    with tempfile.TemporaryDirectory() as folder:
        files = {
            "evaluation.json": json.dumps(details, indent=1).encode(),
            "classes.csv": report.class_table(evaluation.report.classes).encode(),
            "confusion.png": figure,
        }
        paths = [Path(folder) / name for name in files]
        for path, blob in zip(paths, files.values(), strict=True):
            path.write_bytes(blob)
        tracking.log_files(mlflow, run_id, paths, "evaluation")
    halting = [one.name for one in evaluation.details if one.halts]
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
            connection.execute(
                "INSERT INTO audit (actor, action, subject, detail) VALUES ('evaluate', 'judge', %s, %s)",
                (f"{VIT}/{evaluation.model_version}", Jsonb(detail)),
            )
    except psycopg.OperationalError as error:
        raise EvaluateError(
            f"the verdict could not be written to the audit table: {str(error).splitlines()[0]}. "
            "`make status` shows whether PostgreSQL runs"
        ) from error
