"""Plots of a report, as PNG: confusion matrix, reliability diagram, ROC curves, abstention curve.

Only draws: `train.metrics.report` computes the figures.
"""

import io
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from train.metrics.abstention import findings
from train.metrics.classification import SPECIFICITY, roc
from train.metrics.report import Report


def figures(report: Report, names: Sequence[str], title: str) -> dict[str, bytes]:
    """Return file name → PNG."""
    draws: dict[str, Callable[[Any], None]] = {
        "confusion.png": lambda axes: _confusion(axes, report.confusion_KK, names),
        "reliability.png": lambda axes: _reliability(axes, report),
        "roc.png": lambda axes: _roc(axes, report, names),
        "abstention.png": lambda axes: _abstention(axes, report),
    }
    return {name: png(draw, title) for name, draw in draws.items()}


def png(draw: Callable[[Any], None], title: str) -> bytes:
    """Draw one picture, on axes of its own."""
    from matplotlib.figure import Figure  # a second of imports, for these pictures only

    figure = Figure(figsize=(8, 7), layout="constrained")
    axes = figure.subplots()
    draw(axes)
    axes.set_title(title)
    written = io.BytesIO()
    figure.savefig(written, format="png", dpi=110)
    return written.getvalue()


def _confusion(axes: Any, confusion_KK: np.ndarray, names: Sequence[str]) -> None:
    """Draw counts, shaded by the share of the true class."""
    shares_KK = confusion_KK / np.maximum(confusion_KK.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares_KK, cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(confusion_KK):
        if count:
            color = "white" if shares_KK[row, column] > 0.5 else "black"
            axes.text(column, row, str(count), ha="center", va="center", color=color, fontsize=8)
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right")
    axes.set_yticks(range(len(names)), names)
    axes.set(xlabel="answer", ylabel="truth")


def _reliability(axes: Any, report: Report) -> None:
    """Draw accuracy against confidence: a calibrated model lies on the diagonal."""
    axes.plot([0, 1], [0, 1], color="grey", linewidth=1)
    for name, error in (("before", report.ece_before), ("after", report.ece)):
        bins = report.reliability[name]
        axes.plot(
            [bin_.confidence for bin_ in bins],
            [bin_.accuracy for bin_ in bins],
            marker="o",
            label=f"{name} temperature scaling, calibration error {error.value:.3f}",
        )
    axes.set(xlabel="mean confidence", ylabel="share right", xlim=(0, 1), ylim=(0, 1))
    axes.legend(loc="upper left")


def _roc(axes: Any, report: Report, names: Sequence[str]) -> None:
    """Draw each class against all others, and any finding against none."""
    axes.plot([0, 1], [0, 1], color="grey", linewidth=1)
    axes.axvline(1 - SPECIFICITY, color="grey", linewidth=1, linestyle=":")
    for k, result in enumerate(report.classes):
        if result.auroc is not None:
            false_T, true_T = roc(report.labels_N == k, report.probabilities_NK[:, k])
            axes.plot(false_T, true_T, label=f"{result.label} {result.auroc.value:.3f}")
    if report.abnormal is not None:
        finding_K = findings(names)
        false_T, true_T = roc(finding_K[report.labels_N], report.probabilities_NK[:, finding_K].sum(axis=1))
        label = f"any finding {report.abnormal['auroc'].value:.3f}"
        axes.plot(false_T, true_T, color="black", linewidth=2, label=label)
    axes.set(xlabel="1 - specificity", ylabel="sensitivity", xlim=(0, 1), ylim=(0, 1.01))
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="lower right", title="area under the curve")


def _abstention(axes: Any, report: Report) -> None:
    """Draw accuracy and false-normal rate against the share answered, with their intervals."""
    points = report.abstention
    answered = [point.answered for point in points]
    axes.plot(answered, [point.accuracy.value for point in points], marker="o", label="accuracy")
    axes.fill_between(
        answered,
        [point.accuracy.low for point in points],
        [point.accuracy.high for point in points],
        alpha=0.2,
    )
    rates = [
        (point.answered, point.false_normal_rate) for point in points if point.false_normal_rate is not None
    ]
    if rates:
        shares = [share for share, _ in rates]
        axes.plot(shares, [point.value for _, point in rates], marker="o", label="false-normal rate")
        axes.fill_between(
            shares, [point.low for _, point in rates], [point.high for _, point in rates], alpha=0.2
        )
    axes.axvline(1 - report.abstained.value, color="grey", linestyle=":", label="as the card has it")
    axes.set(xlabel="share of images answered", ylabel="share", ylim=(0, 1.01))
    axes.legend(loc="center left")
