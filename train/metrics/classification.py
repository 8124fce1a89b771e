"""Classification metrics with intervals over patients: accuracy, per-class tables, confusion, AUROC, sensitivity.

Pure arithmetic on labels, answers and probabilities; docs/evaluation.md has the formulas. scikit-learn has the point
estimates only; here each is computed for a thousand weighted resamples at once.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from train.metrics.bootstrap import Estimate, Resampling, flat, ratio

SPECIFICITY = 0.90
"""Specificity at which sensitivities are read off the ROC curve."""
CLASS_FIGURES = ("precision", "recall", "f1", "auroc", "sensitivity")


@dataclass(frozen=True, kw_only=True)
class ClassResult:
    """One class on one set of images; a figure that cannot be computed is None."""

    label: str
    images: int
    groups: int
    """Patients, or groups of near-duplicates."""
    precision: Estimate | None
    recall: Estimate | None
    f1: Estimate | None
    auroc: Estimate | None
    """This class against all others."""
    sensitivity: Estimate | None
    """Of this class against all others, at a specificity of `SPECIFICITY`."""

    def flat(self) -> dict[str, Any]:
        """Return one row of a table: `recall`, `recall_low`, `recall_high` and so on."""
        row: dict[str, Any] = {"label": self.label, "images": self.images, "groups": self.groups}
        for name in CLASS_FIGURES:
            estimate: Estimate | None = getattr(self, name)
            empty = {name: None, f"{name}_low": None, f"{name}_high": None}
            row |= empty if estimate is None else estimate.flat(name)
        return row


@dataclass(frozen=True, kw_only=True)
class Overall:
    """Summary figures of a set of images."""

    accuracy: Estimate
    balanced_accuracy: Estimate
    """Mean recall over the classes that occur."""
    macro_f1: Estimate
    """Mean F1 over the classes that occur."""

    def flat(self) -> dict[str, float]:
        return flat(**vars(self))


def confusion(labels_N: np.ndarray, answers_N: np.ndarray, classes: int) -> np.ndarray:
    """Count counts_KK: rows are the truth, columns the answers."""
    return np.bincount(labels_N * classes + answers_N, minlength=classes**2).reshape(classes, classes)


def balanced_accuracy(confusion_KK: np.ndarray) -> float:
    """Compute the mean recall over the classes that occur."""
    return float(_balanced(confusion_KK[None])[0])


def overall(labels_N: np.ndarray, answers_N: np.ndarray, classes: int, resampling: Resampling) -> Overall:
    """Compute accuracy, balanced accuracy and macro F1."""
    confusion_1KK = confusion(labels_N, answers_N, classes)[None]
    drawn_RKK = _drawn_confusions(labels_N, answers_N, classes, resampling)
    return Overall(
        accuracy=resampling.estimate(_accuracy(confusion_1KK)[0], _accuracy(drawn_RKK)),
        balanced_accuracy=resampling.estimate(_balanced(confusion_1KK)[0], _balanced(drawn_RKK)),
        macro_f1=resampling.estimate(_macro_f1(confusion_1KK)[0], _macro_f1(drawn_RKK)),
    )


def per_class(
    labels_N: np.ndarray,
    probabilities_NK: np.ndarray,
    groups_N: Sequence[str],
    names: Sequence[str],
    resampling: Resampling,
) -> list[ClassResult]:
    """Compute one row a class of the taxonomy, in its order."""
    answers_N, groups = probabilities_NK.argmax(axis=1), np.asarray(groups_N)
    measured = _class_figures(confusion(labels_N, answers_N, len(names))[None])
    drawn = _class_figures(_drawn_confusions(labels_N, answers_N, len(names), resampling))
    rows = []
    for k, name in enumerate(names):
        true_N = labels_N == k
        areas = ranked(true_N, probabilities_NK[:, k], resampling)
        figures = {
            figure: resampling.estimate(values_1K[0, k], drawn[figure][:, k])
            if np.isfinite(values_1K[0, k])
            else None
            for figure, values_1K in measured.items()
        }
        rows.append(
            ClassResult(
                label=name,
                images=int(true_N.sum()),
                groups=len(np.unique(groups[true_N])),
                auroc=areas["auroc"] if areas else None,
                sensitivity=areas["sensitivity"] if areas else None,
                **figures,
            )
        )
    return rows


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One non-empty cell of the confusion matrix."""

    truth: str
    answer: str
    images: int
    share: Estimate
    """Of the images of the true class."""

    def flat(self) -> dict[str, Any]:
        return {**vars(self), **self.share.flat("share")}


def cells(
    labels_N: np.ndarray, answers_N: np.ndarray, names: Sequence[str], resampling: Resampling
) -> list[Cell]:
    """Return the confusion matrix with intervals, truth by truth."""
    confusion_KK = confusion(labels_N, answers_N, len(names))
    drawn_RKK = _drawn_confusions(labels_N, answers_N, len(names), resampling)
    shares_RKK = ratio(drawn_RKK, drawn_RKK.sum(axis=2, keepdims=True))
    return [
        Cell(
            truth=names[row],
            answer=names[column],
            images=int(count),
            share=resampling.estimate(count / confusion_KK[row].sum(), shares_RKK[:, row, column]),
        )
        for (row, column), count in np.ndenumerate(confusion_KK)
        if count
    ]


def macro_auroc(
    labels_N: np.ndarray, probabilities_NK: np.ndarray, resampling: Resampling
) -> Estimate | None:
    """Compute the mean area over the classes that have one; None if none has."""
    present = [k for k in range(probabilities_NK.shape[1]) if 0 < (labels_N == k).sum() < len(labels_N)]
    if not present:
        return None
    areas = [_areas(labels_N == k, probabilities_NK[:, k], resampling) for k in present]
    return resampling.estimate(
        float(np.mean([measured[0][0] for measured, _ in areas])),
        np.nanmean(np.stack([drawn[0] for _, drawn in areas]), axis=0),
    )


def ranked(
    positive_N: np.ndarray, scores_N: np.ndarray, resampling: Resampling
) -> Mapping[str, Estimate] | None:
    """Compute `auroc` and `sensitivity` at `SPECIFICITY` of a score; None unless positive and negative images occur.

    The area is by ranks (Mann-Whitney), ties counted half. The sensitivity is the highest that a threshold
    reaches at which no more than 1 - `SPECIFICITY` of the others are taken for positive.
    """
    if positive_N.all() or not positive_N.any():
        return None
    measured, drawn = _areas(positive_N, scores_N, resampling)
    return {
        name: resampling.estimate(measured[nth][0], drawn[nth])
        for nth, name in enumerate(("auroc", "sensitivity"))
    }


def roc(positive_N: np.ndarray, scores_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Compute false- and true-positive rates from (0, 0) to (1, 1), one point a threshold; both kinds must occur."""
    from sklearn.metrics import roc_curve  # a second of imports, for the plots only

    false_T, true_T, _ = roc_curve(positive_N, scores_N, drop_intermediate=False)
    return false_T, true_T


def _areas(
    positive_N: np.ndarray, scores_N: np.ndarray, resampling: Resampling
) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Compute AUROC and sensitivity as measured (one value each), and in each resample."""
    order_N = np.argsort(-scores_N, kind="stable")
    steps_T = np.flatnonzero(np.r_[True, np.diff(scores_N[order_N]) != 0])
    measured = _rank_figures(positive_N[order_N], steps_T, np.ones((1, len(order_N))))
    parts = [_rank_figures(positive_N[order_N], steps_T, w_CN[:, order_N]) for w_CN in resampling.weights()]
    return measured, (
        np.concatenate([part[0] for part in parts]),
        np.concatenate([part[1] for part in parts]),
    )


def _rank_figures(
    positive_N: np.ndarray, steps_T: np.ndarray, weights_CN: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Compute AUROC and sensitivity in each resample.

    Images are sorted by falling score; `steps_T` starts each run of ties.
    """
    true_CT = np.add.reduceat(weights_CN * positive_N, steps_T, axis=1)
    false_CT = np.add.reduceat(weights_CN * ~positive_N, steps_T, axis=1)
    true_sum_CT, false_sum_CT = true_CT.cumsum(axis=1), false_CT.cumsum(axis=1)
    true_C, false_C = true_sum_CT[:, -1], false_sum_CT[:, -1]
    beaten_C = (true_CT * (false_C[:, None] - false_sum_CT + false_CT / 2)).sum(axis=1)
    allowed_C = (false_sum_CT <= (1 - SPECIFICITY) * false_C[:, None] + 1e-9).sum(axis=1)
    caught_C = np.where(allowed_C > 0, true_sum_CT[np.arange(len(true_C)), np.maximum(allowed_C - 1, 0)], 0.0)
    return (
        ratio(beaten_C, true_C * false_C),
        np.where(false_C > 0, ratio(caught_C, true_C), np.nan),
    )


def _drawn_confusions(
    labels_N: np.ndarray, answers_N: np.ndarray, classes: int, resampling: Resampling
) -> np.ndarray:
    """Count counts_RKK: one confusion matrix a resample."""
    cells_ND = np.zeros((len(labels_N), classes**2), np.uint8)
    cells_ND[np.arange(len(labels_N)), labels_N * classes + answers_N] = 1
    return resampling.sums(cells_ND).reshape(-1, classes, classes)


def _class_figures(confusion_RKK: np.ndarray) -> dict[str, np.ndarray]:
    """Compute precision, recall and F1, (R, K); NaN for a class that is not answered or does not occur."""
    right_RK = np.diagonal(confusion_RKK, axis1=1, axis2=2).astype(np.float64)
    true_RK, answered_RK = confusion_RKK.sum(axis=2), confusion_RKK.sum(axis=1)
    return {
        "precision": ratio(right_RK, answered_RK),
        "recall": ratio(right_RK, true_RK),
        "f1": np.where(true_RK > 0, ratio(2 * right_RK, true_RK + answered_RK), np.nan),
    }


def _accuracy(confusion_RKK: np.ndarray) -> np.ndarray:
    return ratio(np.trace(confusion_RKK, axis1=1, axis2=2), confusion_RKK.sum(axis=(1, 2)))


def _balanced(confusion_RKK: np.ndarray) -> np.ndarray:
    return np.asarray(np.nanmean(_class_figures(confusion_RKK)["recall"], axis=1))


def _macro_f1(confusion_RKK: np.ndarray) -> np.ndarray:
    return np.asarray(np.nanmean(_class_figures(confusion_RKK)["f1"], axis=1))
