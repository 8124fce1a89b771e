"""The verdict of a load test: the gates' results, recorded where a deployment and people look for them."""

import json
import tempfile
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from psycopg.types.json import Jsonb

from cluster.database import connect
from cluster.objects import ObjectStore
from cluster.releases.bundles import BUCKET
from cluster.releases.registry import VIT, Registry
from cluster.settings import Settings
from jobs.load_test.arrivals import Plan
from jobs.load_test.report import LoadReport
from jobs.runtime import entry
from serve.control.admission import LOAD_RATE, LOAD_TEST
from serve.control.environments import Environment
from train.evaluation.evaluate import FOLDER
from train.evaluation.gates import GateResult, Gates, overall
from train.evaluation.load_gates import judge
from train.tracking import mlflow_runs

ACTOR = "jobs.load_test"


def with_environment(gates: Gates, environment: Environment) -> Gates:
    """Return gates whose bounds of a load test are the environment's where they are at their default."""
    default = Gates()
    unset = {
        name: bound
        for name, bound in environment.load_gates.items()
        if getattr(gates, name) == getattr(default, name)
    }
    return replace(gates, **unset)  # type: ignore[arg-type]


def judge_and_record(
    settings: Settings, version: str, plan: Plan, measured: LoadReport, gates: Gates
) -> dict[str, Any]:
    """Judge a load test; record the verdict as tags of the version, and its reasons where people look for them.

    Raises:
        Halted: a gate failed; the verdict is recorded all the same.
    """
    results = judge(measured.load, gates, settings.environment)
    verdict = overall(results)
    why = "; ".join(result.why for result in results if result.verdict != "pass")
    if why and measured.sender_late_p99_ms > gates.load_p99_ms / 10:
        why += f"; the sender itself was {measured.sender_late_p99_ms:.0f} ms late (P99): its machine is too busy"
    line = {
        "model_version": version,
        "environment": settings.environment,
        "seconds": plan.seconds,
        **measured.as_dict(),
        "gates": {result.name: result.verdict for result in results},
        "why": {result.name: result.why for result in results},
        "verdict": verdict,
    }
    line["report"] = _record(settings, version, line, results)
    Registry(settings).set_tags(
        VIT,
        version,
        {
            LOAD_TEST: verdict,
            LOAD_RATE: f"{plan.rate:g}",
            "load_test_why": why,
            "load_test_environment": settings.environment,
            "load_test_p99_ms": f"{measured.p99_ms:g}",
            "load_test_report": line["report"],
        },
    )
    if verdict != "pass":
        raise entry.Halted(f"version {version} does not stand its load: {why}", line)
    return line


def _record(settings: Settings, version: str, line: dict[str, Any], results: list[GateResult]) -> str:
    """Write the report to the object store, the audit table and the run that trained the version; returns its key."""
    key = f"load-tests/{VIT}/{version}/{datetime.now(UTC):%Y%m%dT%H%M%S%fZ}.json"
    report = {**line, "gates": [result.as_dict() for result in results]}
    ObjectStore(settings).put_json(BUCKET, key, report)
    with connect(settings.database_url) as connection:
        connection.execute(
            "INSERT INTO audit (actor, action, subject, detail) VALUES (%s, 'load_test', %s, %s)",
            (ACTOR, f"{VIT}/{version}", Jsonb(report)),
        )
    run_id = Registry(settings).run_id(VIT, version)
    if run_id is not None:
        mlflow = mlflow_runs.client(settings.mlflow_tracking_uri)
        names = ("p50_ms", "p95_ms", "p99_ms", "throughput", "wanted", "requests")
        figures = {f"load_{name}": float(line[name]) for name in names}
        mlflow_runs.log_figures(
            mlflow, run_id, {**figures, "load_errors": float(sum(line["errors"].values()))}
        )
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "load_test.json"
            path.write_text(json.dumps(report, indent=1))
            mlflow_runs.log_files(mlflow, run_id, [path], FOLDER)
    return key
