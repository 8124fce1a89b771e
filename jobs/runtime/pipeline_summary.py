"""Prints the summary of a pipeline run: metrics, gates, answers, times, addresses."""

from typing import Any

from cluster.settings import Settings
from jobs.runtime.console import Console


def show(console: Console, settings: Settings, report: dict[str, Any]) -> None:
    """Print tables of a report as `jobs.pipeline` makes it; parts that are absent are left out."""
    _metrics(console, report["evaluate"])
    if "ask" in report:
        _answers(console, report["ask"])
    if "load_test" in report:
        console.say(
            f"Load test: {report['load_test']['verdict']}; {'; '.join(report['load_test']['why'].values())}"
        )
    _times(console, report)
    console.say(
        f"Ray dashboard {settings.ray_api_server_address} (token: {settings.ray_auth_token_path})\n"
        f"MLflow        {settings.mlflow_tracking_uri}\n"
        f"API           {settings.api_url} (OpenAPI at /docs; keys in .raydiology/env)\n"
        f"Log           {console.log_path}\n"
        "Everything stays up until `make down`. Nothing here is medical advice."
    )


def _metrics(console: Console, evaluation: dict[str, Any]) -> None:
    metrics = evaluation["metrics"]
    rows = [
        (
            result["label"],
            result["images"],
            *(_percent(result[name]) for name in ("precision", "recall", "f1", "auroc")),
        )
        for result in metrics["classes"]
    ]
    header = ("class", "images", "precision", "recall", "F1", "AUROC")
    console.table(f"Test split of {metrics['groups']:.0f} patients, per class", header, rows)
    console.say(
        f"accuracy {_percent(metrics['accuracy'])} (95 % interval over patients "
        f"{_percent(metrics['accuracy_low'])} to {_percent(metrics['accuracy_high'])}), "
        f"balanced {_percent(metrics['balanced_accuracy'])}, calibration error {_percent(metrics['ece'])}"
    )
    sources = [
        (name, row["images"], _percent(row["value"]), f"{_percent(row['low'])} to {_percent(row['high'])}")
        for name, row in metrics["sources"].items()
    ]
    console.table("Accuracy by source", ("source", "images", "accuracy", "95 % interval"), sources)
    gates = [(name, verdict, evaluation["why"][name]) for name, verdict in evaluation["gates"].items()]
    console.table(f"Gates: {evaluation['verdict']}", ("gate", "verdict", "why"), gates)


def _answers(console: Console, answers: dict[str, Any]) -> None:
    rows = [
        (
            row["image"][:8],
            row["truth"],
            row["answer"] + (" (unsure)" if row["abstained"] else ""),
            _percent(row["confidence"]),
            row.get("explanation", ""),
        )
        for row in answers["rows"]
    ]
    console.table(
        f"Asked over HTTP: {answers['right']} of {answers['asked']} right, median {answers['latency_p50_ms']} ms",
        ("image", "truth", "answer", "confidence", "explanation"),
        rows,
    )


def _times(console: Console, report: dict[str, Any]) -> None:
    stages = ", ".join(f"{stage} {seconds:.0f} s" for stage, seconds in report["times_s"].items())
    console.say(f"Done in {report['seconds']:.0f} s ({stages})")
    if "deploy" not in report:
        console.say(
            f"HALTED by its gates: version {report['evaluate']['model_version']} is not served; whatever answered "
            "before still does."
        )


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f} %"
