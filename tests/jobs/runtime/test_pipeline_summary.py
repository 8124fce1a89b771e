"""The summary of a pipeline run."""

from pathlib import Path
from typing import Any

import pytest

from jobs.runtime.console import Console
from jobs.runtime.pipeline_summary import show
from tests.bare_settings import bare_settings

METRICS = {
    "groups": 12.0,
    "accuracy": 0.9,
    "accuracy_low": 0.8,
    "accuracy_high": 0.95,
    "balanced_accuracy": 0.85,
    "ece": None,
    "classes": [
        {"label": "normal", "images": 7, "precision": 1.0, "recall": 0.5, "f1": 0.667, "auroc": None}
    ],
    "sources": {"clinic": {"images": 7, "value": 0.9, "low": 0.8, "high": 0.95}},
}
EVALUATION = {
    "metrics": METRICS,
    "gates": {"accuracy": "pass"},
    "why": {"accuracy": "0.900 of 0.500"},
    "verdict": "pass",
    "model_version": "3",
}
REPORT = {"evaluate": EVALUATION, "times_s": {"etl": 4.4, "train": 60.0}, "seconds": 70.0}
ASKED = {
    "rows": [
        {"image": "0123456789", "truth": "normal", "answer": "covid19", "abstained": True, "confidence": 0.4}
    ],
    "right": 0,
    "asked": 1,
    "latency_p50_ms": 21,
}


def shown(folder: Path, capsys: pytest.CaptureFixture[str], **more: Any) -> str:
    with Console(folder / "log") as console:
        show(console, bare_settings(), {**REPORT, **more})
    return capsys.readouterr().out


def test_figures_answers_and_times_are_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(tmp_path, capsys, ask=ASKED, deploy={})
    assert "accuracy 90.0 % (95 % interval over patients 80.0 % to 95.0 %)" in text
    assert "calibration error –" in text
    assert "covid19 (unsure)" in text
    assert "0 of 1 right, median 21 ms" in text
    assert "Done in 70 s (etl 4 s, train 60 s)" in text
    assert "HALTED" not in text


def test_a_run_that_was_halted_says_which_version_is_not_served(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "HALTED by its gates: version 3 is not served" in shown(tmp_path, capsys)
