"""The figures of one model version on one split, computed once from logits: for the gates, MLflow and people.

Pure arithmetic, and the drawing of the confusion matrix.
"""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from train import metrics
from train.calibration import calibration_error, prediction_sets, probabilities
from train.gates import ClassCount, Measured
from train.metrics import ClassResult, Share


@dataclass(frozen=True, kw_only=True)
class Report:
    """What evaluation measured on the test split."""

    accuracy: Share
    balanced_accuracy: float
    macro_f1: float
    macro_auroc: float | None
    ece_before: float
    """Expected calibration error with temperature 1."""
    ece: float
    coverage: float
    """Measured share of prediction sets that hold the truth."""
    set_size: float
    """Mean number of classes in a prediction set."""
    abstained: float
    """Share of images without a definite answer."""
    answered_accuracy: float | None
    """Accuracy on the others."""
    classes: Sequence[ClassResult]
    sources: Mapping[str, Share]
    confusion_KK: np.ndarray

    def scalars(self) -> dict[str, float]:
        """Flat figures, as MLflow takes them and the job's last line shows them."""
        named = {
            "accuracy": self.accuracy.value,
            "accuracy_low": self.accuracy.low,
            "accuracy_high": self.accuracy.high,
            "balanced_accuracy": self.balanced_accuracy,
            "macro_f1": self.macro_f1,
            "macro_auroc": self.macro_auroc,
            "ece_before": self.ece_before,
            "ece": self.ece,
            "coverage": self.coverage,
            "set_size": self.set_size,
            "abstained": self.abstained,
            "answered_accuracy": self.answered_accuracy,
            "images": self.accuracy.images,
            "groups": self.accuracy.groups,
        }
        return {name: float(value) for name, value in named.items() if value is not None}

    def measured(self) -> Measured:
        """What the gates look at."""
        return Measured(
            accuracy=self.accuracy.value,
            low=self.accuracy.low,
            high=self.accuracy.high,
            images=self.accuracy.images,
            groups=self.accuracy.groups,
            classes=[
                ClassCount(label=one.label, recall=one.recall, images=one.images, groups=one.groups)
                for one in self.classes
            ],
        )

    def as_dict(self) -> dict[str, Any]:
        return {
            **self.scalars(),
            "classes": [asdict(one) for one in self.classes],
            "sources": {name: one.as_dict() for name, one in self.sources.items()},
            "confusion": self.confusion_KK.tolist(),
        }


def build(
    logits_NK: np.ndarray,
    labels_N: np.ndarray,
    *,
    groups: Sequence[str],
    sources: Sequence[str],
    names: Sequence[str],
    calibration: Mapping[str, float],
) -> Report:
    """Compute everything; at least one image."""
    calibrated_NK = probabilities(logits_NK, calibration["temperature"])
    right_N = calibrated_NK.argmax(axis=1) == labels_N
    sets_NK = prediction_sets(calibrated_NK, calibration["conformal_threshold"])
    answered_N = calibrated_NK.max(axis=1) >= calibration["abstain_below"]
    classes = metrics.per_class(labels_N, calibrated_NK, groups, names)
    areas = [one.auroc for one in classes if one.auroc is not None]
    confusion_KK = metrics.confusion(labels_N, calibrated_NK.argmax(axis=1), len(names))
    return Report(
        accuracy=metrics.share(right_N, groups),
        balanced_accuracy=metrics.balanced_accuracy(confusion_KK),
        macro_f1=float(np.mean([one.f1 for one in classes if one.f1 is not None])),
        macro_auroc=float(np.mean(areas)) if areas else None,
        ece_before=calibration_error(probabilities(logits_NK, 1.0), labels_N),
        ece=calibration_error(calibrated_NK, labels_N),
        coverage=float(sets_NK[np.arange(len(labels_N)), labels_N].mean()),
        set_size=float(sets_NK.sum(axis=1).mean()),
        abstained=float(1 - answered_N.mean()),
        answered_accuracy=float(right_N[answered_N].mean()) if answered_N.any() else None,
        classes=classes,
        sources=metrics.share_by(right_N, groups, sources),
        confusion_KK=confusion_KK,
    )


def class_table(classes: Sequence[ClassResult]) -> str:
    """The per-class results as CSV."""
    written = io.StringIO()
    table = csv.DictWriter(written, fieldnames=list(asdict(classes[0])), lineterminator="\n")
    table.writeheader()
    table.writerows(asdict(one) for one in classes)
    return written.getvalue()


def confusion_figure(confusion_KK: np.ndarray, names: Sequence[str], title: str) -> bytes:
    """The confusion matrix as PNG: counts, shaded by the share of the true class."""
    from matplotlib.figure import Figure  # a second of imports, for this picture only

    figure = Figure(figsize=(8, 7), layout="constrained")
    axes = figure.subplots()
    shares_KK = confusion_KK / np.maximum(confusion_KK.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares_KK, cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(confusion_KK):
        if count:
            color = "white" if shares_KK[row, column] > 0.5 else "black"
            axes.text(column, row, str(count), ha="center", va="center", color=color, fontsize=8)
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right")
    axes.set_yticks(range(len(names)), names)
    axes.set(xlabel="answer", ylabel="truth", title=title)
    written = io.BytesIO()
    figure.savefig(written, format="png", dpi=110)
    return written.getvalue()
