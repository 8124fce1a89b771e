"""Pictures of a report, as PNG: confusion matrix, reliability diagram, ROC curves, abstention curve.

Nothing here computes a figure; `train.report` has done that.
"""

import io
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from train.abstention import findings
from train.metrics import SPECIFICITY, roc
from train.report import Report


def figures(report: Report, names: Sequence[str], title: str) -> dict[str, bytes]:
    """File name → PNG."""
    draws: dict[str, Callable[[Any], None]] = {
        "confusion.png": lambda axes: _confusion(axes, report.confusion_KK, names),
        "reliability.png": lambda axes: _reliability(axes, report),
        "roc.png": lambda axes: _roc(axes, report, names),
        "abstention.png": lambda axes: _abstention(axes, report),
    }
    return {name: png(draw, title) for name, draw in draws.items()}


def png(draw: Callable[[Any], None], title: str) -> bytes:
    """One picture, on axes of its own."""
    from matplotlib.figure import Figure  # a second of imports, for these pictures only

    figure = Figure(figsize=(8, 7), layout="constrained")
    axes = figure.subplots()
    draw(axes)
    axes.set_title(title)
    written = io.BytesIO()
    figure.savefig(written, format="png", dpi=110)
    return written.getvalue()


def _confusion(axes: Any, confusion_KK: np.ndarray, names: Sequence[str]) -> None:
    """Counts, shaded by the share of the true class."""
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
    """Accuracy against confidence: on the diagonal a probability is what it says."""
    axes.plot([0, 1], [0, 1], color="grey", linewidth=1)
    for name, error in (("before", report.ece_before), ("after", report.ece)):
        bins = report.reliability[name]
        axes.plot(
            [one.confidence for one in bins],
            [one.accuracy for one in bins],
            marker="o",
            label=f"{name} temperature scaling, calibration error {error.value:.3f}",
        )
    axes.set(xlabel="mean confidence", ylabel="share right", xlim=(0, 1), ylim=(0, 1))
    axes.legend(loc="upper left")


def _roc(axes: Any, report: Report, names: Sequence[str]) -> None:
    """Each class against all others, and any finding against none."""
    axes.plot([0, 1], [0, 1], color="grey", linewidth=1)
    axes.axvline(1 - SPECIFICITY, color="grey", linewidth=1, linestyle=":")
    for k, one in enumerate(report.classes):
        if one.auroc is not None:
            false_T, true_T = roc(report.labels_N == k, report.probabilities_NK[:, k])
            axes.plot(false_T, true_T, label=f"{one.label} {one.auroc.value:.3f}")
    if report.abnormal is not None:
        finding_K = findings(names)
        false_T, true_T = roc(finding_K[report.labels_N], report.probabilities_NK[:, finding_K].sum(axis=1))
        label = f"any finding {report.abnormal['auroc'].value:.3f}"
        axes.plot(false_T, true_T, color="black", linewidth=2, label=label)
    axes.set(xlabel="1 - specificity", ylabel="sensitivity", xlim=(0, 1), ylim=(0, 1.01))
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="lower right", title="area under the curve")


def _abstention(axes: Any, report: Report) -> None:
    """Accuracy and false-normal rate against the share answered, with their intervals."""
    points = report.abstention
    answered = [one.answered for one in points]
    axes.plot(answered, [one.accuracy.value for one in points], marker="o", label="accuracy")
    axes.fill_between(
        answered, [one.accuracy.low for one in points], [one.accuracy.high for one in points], alpha=0.2
    )
    rates = [(one.answered, one.false_normal_rate) for one in points if one.false_normal_rate is not None]
    if rates:
        shares = [share for share, _ in rates]
        axes.plot(shares, [one.value for _, one in rates], marker="o", label="false-normal rate")
        axes.fill_between(shares, [one.low for _, one in rates], [one.high for _, one in rates], alpha=0.2)
    axes.axvline(1 - report.abstained.value, color="grey", linestyle=":", label="as the card has it")
    axes.set(xlabel="share of images answered", ylabel="share", ylim=(0, 1.01))
    axes.legend(loc="center left")
